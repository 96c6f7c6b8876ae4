"""Commands: `decide(rollout, verb) → actions`. Pure; what cannot be done now is a `ConflictError`.

What depends on other rollouts (one of a model at a time) is for `service` to check.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.errors import ConflictError, NotFoundError
from controller.rollouts.planner import cancelled, current_wave, roll_back, take_back
from controller.rollouts.states import BAD, VERBS, ExecutionState, RolloutState, WaveState
from controller.rollouts.values import Action, Requeue, RolloutView, SetRollout, SetWave

E, R, W = ExecutionState, RolloutState, WaveState


def decide(view: RolloutView, verb: str, actor: str) -> list[Action]:
    """What a command of a person does."""
    if verb not in VERBS:
        raise NotFoundError(f"verb {verb[:40]!r}: expected {', '.join(VERBS)}")
    if view.state not in VERBS[verb]:
        allowed = ", ".join(sorted(VERBS[verb]))
        raise _refusal(view, f"is {view.state}, {verb} needs {allowed}")
    return _DECISIONS[verb](view, actor)


def _start(view: RolloutView, actor: str) -> list[Action]:
    return [SetRollout(R.RUNNING, "")]


def _pause(view: RolloutView, actor: str) -> list[Action]:
    return [SetRollout(R.PAUSED, f"paused by {actor}")]


def _resume(view: RolloutView, actor: str) -> list[Action]:
    """Go on; an inconclusive wave is judged once more."""
    for one in view.waves:
        if one.state is W.FAILED:
            raise _refusal(view, f"wave {one.number} failed: promote, retry or roll back")
    wave = current_wave(view)
    if wave is None or wave.state is not W.INCONCLUSIVE:
        return [SetRollout(R.RUNNING, "")]
    again = W.EVALUATING if wave.evaluating_ms else W.RELEASING
    return [SetWave(wave.number, again), SetRollout(R.RUNNING, "")]


def _promote(view: RolloutView, actor: str) -> list[Action]:
    """Pass the wave under way without its soak and gates; what failed in it is accepted.

    Who still waits in it is offered the release by the engine, as caps and schedule allow.
    """
    wave = current_wave(view)
    if wave is None or wave.state is W.PENDING:
        raise _refusal(view, "no wave is under way")
    return [
        SetWave(wave.number, W.PASSED, f"promoted by {actor}", promoted=True),
        SetRollout(R.RUNNING, ""),
    ]


def _abort(view: RolloutView, actor: str) -> list[Action]:
    """What was not begun is taken back, what is under way ends by itself."""
    actions: list[Action] = []
    for one in view.executions:
        if one.state in (E.QUEUED, E.OFFERED, E.TIMED_OUT):
            actions.append(cancelled(one, "the rollout was aborted"))
            if one.state is not E.QUEUED or one.attempt > 1:
                actions.append(take_back(one))
    return [*actions, SetRollout(R.ABORTED, f"aborted by {actor}")]


def _roll_back(view: RolloutView, actor: str) -> list[Action]:
    return roll_back(view, f"rolled back by {actor}")


def _retry(view: RolloutView, actor: str) -> list[Action]:
    """Another attempt for whoever failed or was not reached; their waves are released again."""
    failed = [one for one in view.executions if one.state in BAD | {E.TIMED_OUT}]
    if not failed:
        raise _refusal(view, "no device has failed")
    numbers = {one.wave for one in failed}
    return [
        *(Requeue(one.device, one.attempt) for one in failed),
        *(
            SetWave(wave.number, W.RELEASING)
            for wave in view.waves
            if wave.number in numbers and wave.state is not W.RELEASING
        ),
        SetRollout(R.RUNNING, ""),
    ]


def _refusal(view: RolloutView, why: str) -> ConflictError:
    return ConflictError(f"rollout {view.rollout}: {why}", code="wrong-state")


_DECISIONS: dict[str, Callable[[RolloutView, str], list[Action]]] = {
    "start": _start,
    "pause": _pause,
    "resume": _resume,
    "promote": _promote,
    "abort": _abort,
    "rollback": _roll_back,
    "retry": _retry,
}
