"""Second approvers: what waits for approval, and of how many. Pure.

An approval is of the start (wave 0), or of a wave that asks for one. Whoever created or started
the rollout cannot give it; `service` looks that up.
"""

from __future__ import annotations

from controller.rollouts.states import RolloutState, WaveState
from controller.rollouts.values import RolloutView

START = 0


def missing(view: RolloutView, wave: int) -> int:
    """How many approvals a wave, or the start, still needs."""
    needed = view.options.approvals
    if wave != START:
        needed = max(needed, 1) if view.waves[wave - 1].needs_approval else 0
    given = {one.person for one in view.approvals if one.wave == wave}
    return max(needed - len(given), 0)


def awaited(view: RolloutView) -> int | None:
    """What waits for approval now: the start, or the wave that comes next; None where nothing."""
    if view.state is RolloutState.AWAITING_APPROVAL:
        return START
    if view.state not in (RolloutState.RUNNING, RolloutState.PAUSED):
        return None
    wave = next((one for one in view.waves if one.state is not WaveState.PASSED), None)
    if wave is None or wave.state is not WaveState.PENDING or not missing(view, wave.number):
        return None
    return wave.number


def words(view: RolloutView, wave: int) -> str:
    """What is waited for."""
    count = missing(view, wave)
    people = "another person" if count == 1 else f"{count} other people"
    return f"waits for approval by {people}" + (f" before wave {wave}" if wave else "")
