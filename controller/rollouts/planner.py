"""The planner: `plan(rollout, now) → actions`. Pure, and safe to repeat.

It never promotes on missing evidence: what cannot be judged is inconclusive, holds, and asks.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from controller.rollouts.approvals import missing, words
from controller.rollouts.retries import retry_at_ms, will_retry
from controller.rollouts.schedule import opens_in, within_caps
from controller.rollouts.states import (
    BAD,
    ENDED,
    UNDER_WAY,
    ExecutionState,
    RolloutState,
    WaveState,
)
from controller.rollouts.values import (
    Action,
    ExecutionView,
    Offer,
    Requeue,
    RolloutView,
    SetExecution,
    SetRollout,
    SetWave,
    TakeBack,
    WaveView,
)

E, R, W = ExecutionState, RolloutState, WaveState

MAX_NAMED = 5
_MAY_SUCCEED = UNDER_WAY | {E.OFFERED, E.TIMED_OUT, E.REVERTED}


def plan(view: RolloutView, now_ms: int) -> list[Action]:
    """Everything that is to be done now; an empty list when nothing is."""
    if view.state is R.ROLLING_BACK:
        return _plan_rollback(view, now_ms)
    if view.state is R.SCHEDULED:
        return _begin(view, now_ms)
    actions = _settle_executions(view, now_ms)
    if actions or view.state not in (R.RUNNING, R.PAUSED):
        return actions
    wave = current_wave(view)
    failure = _find_failure(view, wave)
    if failure is not None:
        return _fail(view, wave, *failure)
    if view.state is R.PAUSED:
        return []
    released = _last_released(view, wave)
    return offers(view, released, now_ms) or (
        _finish(view) if wave is None else _advance(view, wave, now_ms)
    )


def _begin(view: RolloutView, now_ms: int) -> list[Action]:
    """Run when its time has come and no other rollout moves the model."""
    at = view.options.start_at
    if at is not None and now_ms < at.timestamp() * 1000:
        return []
    if view.blocked_by:
        return _say(view, f"waits for {view.blocked_by}, which is under way")
    return [SetRollout(R.RUNNING, "")]


def _say(view: RolloutView, reason: str) -> list[Action]:
    """Let people know what is waited for."""
    return [] if view.reason == reason else [SetRollout(view.state, reason)]


def _finish(view: RolloutView) -> list[Action]:
    """All waves have passed; devices that were given up may still come later."""
    if not all(_has_ended(view, one) for one in view.executions):
        return []  # a promoted wave's devices may still be under way
    lost = [one for one in view.executions if one.state is E.TIMED_OUT]
    reason = f"{len(lost)} devices not reached: {_words(lost)}" if lost else ""
    return [SetRollout(R.SUCCEEDED, reason)]


def current_wave(view: RolloutView) -> WaveView | None:
    """The first wave that has not passed; None when all have."""
    return next((wave for wave in view.waves if wave.state is not W.PASSED), None)


def roll_back(view: RolloutView, reason: str) -> list[Action]:
    """Start taking the release back from every device that was offered it."""
    actions: list[Action] = []
    for one in view.executions:
        if one.state in (E.CANCELLED, E.SUPERSEDED):  # never offered, or taken back already
            continue
        if one.state is E.QUEUED and one.attempt == 1:
            actions.append(cancelled(one, "its wave never came"))
        elif one.assigned_rollback:
            actions += _roll_back_again(one)
        else:
            actions.append(take_back(one))
            if one.state is not E.ROLLED_BACK:
                actions.append(_rolling_back(one))
    return [*actions, SetRollout(R.ROLLING_BACK, reason)]


def _roll_back_again(one: ExecutionView) -> list[Action]:
    """Tell a device anew that did not go back: the same attempt would be old news to it."""
    if one.active_sequence == one.previous_sequence:
        return [_rolling_back(one)] if one.state in (E.FAILED, E.REJECTED) else []
    again = replace(one, attempt=one.attempt + 1)
    return [Requeue(one.device, one.attempt), take_back(again), _rolling_back(again)]


# Executions


def _settle_executions(view: RolloutView, now_ms: int) -> list[Action]:
    """Believe successes while the digest agrees, end what takes too long, try failures again."""
    actions: list[Action] = []
    going = view.state in (R.RUNNING, R.PAUSED)
    for one in view.executions:
        waited = (now_ms - one.updated_ms) / 1000
        if one.state is E.SUCCEEDED and one.assigned_update and not one.digest_agrees:
            actions.append(_reverted(view, one))
        elif one.reported_success and one.state in _MAY_SUCCEED and one.digest_agrees:
            actions.append(
                SetExecution(one.device, one.attempt, E.SUCCEEDED, "succeeded", one.sentence)
            )
        elif one.state is E.OFFERED and waited > view.options.offer_seconds:
            actions.append(_timed_out(one, waited, "not accepted"))
        elif one.state in UNDER_WAY and waited > _patience(view):
            actions.append(_timed_out(one, waited, f"still {one.state.value}"))
        elif going and will_retry(view, one) and now_ms >= retry_at_ms(view, one):
            actions.append(Requeue(one.device, one.attempt))
    return actions


def _has_ended(view: RolloutView, one: ExecutionView) -> bool:
    return one.state in ENDED and not will_retry(view, one)


def _patience(view: RolloutView) -> float:
    options = view.options
    return options.step_seconds + 2 * view.probation_seconds + (options.shadow_seconds or 0.0)


def _reverted(view: RolloutView, one: ExecutionView) -> SetExecution:
    runs = f"runs {one.active_version}" if one.active_version else "runs nothing"
    if one.active_version == view.version:
        runs += " of another digest"
    sentence = f"{one.device}: {runs}, {view.version} was given and had succeeded"
    return SetExecution(one.device, one.attempt, E.REVERTED, "reverted", sentence)


def _timed_out(one: ExecutionView, waited: float, what: str) -> SetExecution:
    sentence = f"{one.device}: {what} after {waited:.0f} s"
    return SetExecution(one.device, one.attempt, E.TIMED_OUT, "timed-out", sentence)


def cancelled(one: ExecutionView, sentence: str) -> SetExecution:
    """End an execution that shall not go on."""
    return SetExecution(one.device, one.attempt, E.CANCELLED, "cancelled", sentence)


def _rolling_back(one: ExecutionView) -> SetExecution:
    return SetExecution(one.device, one.attempt, E.ROLLING_BACK, "rolling-back", one.sentence)


def take_back(one: ExecutionView) -> TakeBack:
    """Assign what the device ran before."""
    return TakeBack(one.device, one.wave, one.attempt, one.previous_sequence)


# Waves


def _find_failure(view: RolloutView, current: WaveView | None) -> tuple[WaveView, str] | None:
    """The wave that cannot go on, and why, whatever state it is in; None while all can.

    A wave that has passed fails too when its devices give the release up later.
    """
    for one in view.waves:
        if one.state is not W.FAILED and not one.promoted:
            failure = _too_many_failed(view, one)
            if failure is not None:
                return one, failure
    if current is not None and current.state in (W.SOAKING, W.EVALUATING):
        failed = [gate for gate in view.gates if gate.verdict == "fail"]
        if failed:
            members = _members(view, current)
            names = _names(one.device for one in members if one.state is E.SUCCEEDED)
            return current, f"{names}: " + "; ".join(gate.sentence for gate in failed)
    return None


def _too_many_failed(view: RolloutView, wave: WaveView) -> str | None:
    members = _members(view, wave)
    bad = [one for one in members if one.state in BAD and not will_retry(view, one)]
    allowed = int(view.options.max_failed_ratio * len(members))
    if len(bad) <= allowed:
        return None
    return f"{len(bad)} of {len(members)} devices failed, {allowed} allowed: {_words(bad)}"


def _fail(view: RolloutView, current: WaveView | None, wave: WaveView, reason: str) -> list[Action]:
    gates = view.gates if wave == current and view.gates else None
    failed = SetWave(wave.number, W.FAILED, reason, gates)
    if view.options.on_failure == "pause":
        if view.state is R.PAUSED:
            return [failed]
        return [failed, SetRollout(R.PAUSED, reason)]
    return [failed, *roll_back(view, reason)]


def _advance(view: RolloutView, wave: WaveView, now_ms: int) -> list[Action]:
    match wave.state:
        case W.PENDING:
            return _release(view, wave, now_ms)
        case W.RELEASING:
            return _when_ended(view, wave)
        case W.SOAKING:
            since = wave.soaking_ms or now_ms
            if now_ms - since < view.options.soak_seconds * 1000:
                return []
            return [SetWave(wave.number, W.EVALUATING)]
        case W.EVALUATING:
            return _evaluate(view, wave, now_ms)
        case _:  # it waits for a person; one before it was promoted
            reason = f"wave {wave.number} is {wave.state}: promote, retry or roll back"
            return [SetRollout(R.PAUSED, reason)]


def _release(view: RolloutView, wave: WaveView, now_ms: int) -> list[Action]:
    if not _members(view, wave):
        return [SetWave(wave.number, W.PASSED, "no device is left for it")]
    if missing(view, wave.number):
        return _say(view, words(view, wave.number))
    if opens_in(view.options, now_ms) > 0:
        return []
    return [SetWave(wave.number, W.RELEASING)]


def _last_released(view: RolloutView, current: WaveView | None) -> int:
    if current is None:
        return len(view.waves)
    return current.number if current.state is W.RELEASING else current.number - 1


def offers(view: RolloutView, released: int, now_ms: int) -> list[Action]:
    """Offer the release to whoever waits for it in a wave that is released, as many as may be.

    Of a wave that has passed, too: it was promoted while some of it had to wait.
    """
    waiting = [one for one in view.executions if one.state is E.QUEUED and one.wave <= released]
    if not waiting or opens_in(view.options, now_ms) > 0:
        return []
    chosen = within_caps(view.options, view.executions, waiting)
    return [Offer(one.device, one.wave, one.attempt) for one in chosen]


def _when_ended(view: RolloutView, wave: WaveView) -> list[Action]:
    """Soak when every device has ended."""
    members = _members(view, wave)
    if not all(_has_ended(view, one) for one in members):
        return []
    reached = [one for one in members if one.state is not E.TIMED_OUT]
    if len(reached) < view.options.min_reached_ratio * len(members):
        lost = [one for one in members if one.state is E.TIMED_OUT]
        return _hold(wave, f"{len(lost)} of {len(members)} devices not reached: {_words(lost)}")
    return [SetWave(wave.number, W.SOAKING)]


def _evaluate(view: RolloutView, wave: WaveView, now_ms: int) -> list[Action]:
    open_gates = [gate for gate in view.gates if gate.verdict == "inconclusive"]
    if view.gates and not open_gates:
        return [SetWave(wave.number, W.PASSED, gates=view.gates)]
    waited = now_ms - (wave.evaluating_ms or now_ms)
    if waited < view.options.evaluate_seconds * 1000:
        return []
    reason = "; ".join(gate.sentence for gate in open_gates) or "no gate was judged"
    return _hold(wave, reason, view)


def _hold(wave: WaveView, reason: str, view: RolloutView | None = None) -> list[Action]:
    gates = view.gates if view is not None else None
    return [
        SetWave(wave.number, W.INCONCLUSIVE, reason, gates),
        SetRollout(R.PAUSED, f"inconclusive, promote or roll back: {reason}"),
    ]


def _members(view: RolloutView, wave: WaveView) -> list[ExecutionView]:
    return [one for one in view.executions if one.wave == wave.number]


# Rolling back


def _plan_rollback(view: RolloutView, now_ms: int) -> list[Action]:
    """Wait until every device is back, giving up those that do not come back in time."""
    actions: list[Action] = []
    for one in view.executions:
        if one.state is not E.ROLLING_BACK:
            continue
        waited = (now_ms - one.updated_ms) / 1000
        if one.previous_sequence is None:
            sentence = f"{one.device}: ran no release before, so it keeps {view.version}"
            actions.append(
                SetExecution(one.device, one.attempt, E.CANCELLED, "nothing-before", sentence)
            )
        elif one.active_sequence == one.previous_sequence:
            actions.append(
                SetExecution(one.device, one.attempt, E.ROLLED_BACK, "rolled-back", one.sentence)
            )
        elif waited > view.options.step_seconds:
            sentence = f"{one.device}: not back after {waited:.0f} s"
            actions.append(
                SetExecution(one.device, one.attempt, E.FAILED, "rollback-timeout", sentence)
            )
    if actions or any(one.state is E.ROLLING_BACK for one in view.executions):
        return actions
    late = [
        one
        for one in view.executions
        if one.state in (E.FAILED, E.REJECTED, E.ROLLED_BACK)
        and one.previous_sequence is not None
        and one.active_sequence != one.previous_sequence
    ]
    patience_ms = view.options.step_seconds * 1000
    stuck = [one for one in late if one.state is E.FAILED or now_ms - one.updated_ms > patience_ms]
    if stuck:
        reason = f"{len(stuck)} devices are not back: {_words(stuck)}"
        return [SetRollout(R.ROLLBACK_FAILED, reason)]
    return [] if late else [SetRollout(R.ROLLED_BACK, None)]


def _words(executions: list[ExecutionView]) -> str:
    """Name devices with the reason of each, the first few."""
    shown = [
        one.sentence if one.sentence.startswith(one.device) else f"{one.device}: {one.sentence}"
        for one in executions[:MAX_NAMED]
    ]
    more = len(executions) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _names(devices: Iterable[str]) -> str:
    names = list(devices)
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
