"""Commands: `decide(rollout, verb) → actions`. Pure; what cannot be done now is a `ConflictError`.

What depends on other rollouts (one of a model at a time) is for `service` to check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from controller.errors import ConflictError, NotFoundError
from controller.rollouts.approvals import START, awaited, missing, words
from controller.rollouts.planner import cancelled, current_wave, roll_back, take_back
from controller.rollouts.states import BAD, VERBS, ExecutionState, RolloutState, WaveState
from controller.rollouts.values import (
    Action,
    Approval,
    RecordApproval,
    Requeue,
    RolloutView,
    SetExecution,
    SetRollout,
    SetWave,
)
from shoal.errors import InvalidInputError

E, R, W = ExecutionState, RolloutState, WaveState


def decide(view: RolloutView, verb: str, actor: str, reason: str = "") -> list[Action]:
    """What a command of a person does; `reason` is why they approve or reject."""
    if verb not in VERBS:
        raise NotFoundError(f"verb {verb[:40]!r}: expected {', '.join(VERBS)}")
    if view.state not in VERBS[verb]:
        allowed = ", ".join(sorted(VERBS[verb]))
        raise _refusal(view, f"is {view.state}, {verb} needs {allowed}")
    if verb == "approve":
        return _approve(view, actor, reason)
    if verb == "reject":
        return _reject(view, actor, reason)
    return _DECISIONS[verb](view, actor)


def _start(view: RolloutView, actor: str) -> list[Action]:
    if missing(view, START):
        return [SetRollout(R.AWAITING_APPROVAL, words(view, START))]
    return [_go(view)]


def _go(view: RolloutView) -> SetRollout:
    """Run, or wait for the moment that was set."""
    at = view.options.start_at
    if at is None and view.blocked_by and view.options.on_conflict == "queue":
        return SetRollout(R.SCHEDULED, f"waits for {view.blocked_by}, which is under way")
    if at is not None:
        return SetRollout(R.SCHEDULED, f"starts at {at.isoformat(timespec='minutes')}")
    return SetRollout(R.RUNNING, "")


def _approve(view: RolloutView, actor: str, reason: str) -> list[Action]:
    wave = _awaited(view)
    given = RecordApproval(wave, actor, approved=True, reason=reason)
    after = replace(view, approvals=(*view.approvals, Approval(wave, actor)))
    if missing(after, wave):
        return [given, SetRollout(view.state, words(after, wave))]
    if wave == START:
        return [given, _go(view)]
    return [given, SetRollout(view.state, "" if view.state is R.RUNNING else None)]


def _reject(view: RolloutView, actor: str, reason: str) -> list[Action]:
    """A start that is rejected ends; a wave that is rejected pauses the rollout."""
    if not reason.strip():
        raise InvalidInputError("reject: say why, in `reason`", code="no-reason")
    wave = _awaited(view)
    given = RecordApproval(wave, actor, approved=False, reason=reason)
    if wave == START:
        return [
            given,
            *_abort(view, actor)[:-1],
            SetRollout(R.ABORTED, f"rejected by {actor}: {reason}"),
        ]
    return [given, SetRollout(R.PAUSED, f"wave {wave} rejected by {actor}: {reason}")]


def _awaited(view: RolloutView) -> int:
    wave = awaited(view)
    if wave is None:
        raise _refusal(view, "nothing waits for approval")
    return wave


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


def supersede(view: RolloutView, by: str) -> list[Action]:
    """Another rollout takes the place of this one: what was not begun is taken back.

    Who works on it goes on until the other one offers its release.
    """
    actions: list[Action] = []
    for one in view.executions:
        if one.state in (E.QUEUED, E.OFFERED, E.TIMED_OUT):
            words = f"{one.device}: {by} has taken over"
            actions.append(SetExecution(one.device, one.attempt, E.SUPERSEDED, "superseded", words))
            if one.state is not E.QUEUED or one.attempt > 1:
                actions.append(take_back(one))
    return [*actions, SetRollout(R.ABORTED, f"superseded by {by}")]


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
