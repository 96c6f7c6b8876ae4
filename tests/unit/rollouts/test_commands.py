"""What people may ask, in every state, and what follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.errors import ConflictError, NotFoundError
from controller.rollouts.commands import decide
from controller.rollouts.states import ROLLOUT_STEPS, VERBS, ExecutionState, RolloutState, WaveState
from controller.rollouts.values import Offer, Requeue, SetRollout, SetWave, TakeBack

E, R, W = ExecutionState, RolloutState, WaveState


@pytest.fixture
def started(make_ledger):
    """One canary of four, released."""
    ledger = make_ledger([1, 3], soak_seconds=600.0, on_failure="pause")
    ledger.command("start")
    ledger.tick()
    return ledger


def _succeed(ledger, device):
    ledger.runs[device] = 2
    ledger.report(device, E.SUCCEEDED)
    ledger.tick()


def _pass_wave(ledger):
    ledger.now_ms += 600_000
    ledger.tick()


@pytest.mark.parametrize(
    ("verb", "state"), [(verb, state) for verb in VERBS for state in R if state not in VERBS[verb]]
)
def test_a_verb_is_refused_in_the_states_it_is_not_for(make_ledger, verb, state):
    view = replace(make_ledger([1, 3]).seen(), state=state)
    with pytest.raises(ConflictError, match=f"is {state}, {verb} needs"):
        decide(view, verb, "ann")


@pytest.mark.parametrize(
    ("verb", "state"), [(verb, state) for verb in VERBS for state in sorted(VERBS[verb])]
)
def test_a_verb_leads_from_every_state_it_is_for_to_where_the_table_says(started, verb, state):
    started.report("gw-0", E.FAILED)
    started.tick()
    view = replace(started.seen(), state=state)
    if verb == "resume":  # no wave is failed
        view = replace(view, waves=tuple(replace(one, state=W.SOAKING) for one in view.waves))
    if verb in ("approve", "reject"):  # something waits for it
        waves = (replace(one, state=W.PENDING, needs_approval=True) for one in view.waves)
        view = replace(view, waves=tuple(waves))
    [*_, last] = decide(view, verb, "ann", "because")
    assert isinstance(last, SetRollout)
    assert last.state is state or "person" in ROLLOUT_STEPS[state, last.state]


def test_an_unknown_verb_is_not_found(started):
    with pytest.raises(NotFoundError, match="expected start, pause"):
        decide(started.seen(), "explode", "ann")


def test_a_paused_rollout_offers_nothing_until_it_is_resumed(started):
    _succeed(started, "gw-0")
    started.command("pause")
    _pass_wave(started)
    assert started.execution("gw-1").state is E.QUEUED

    started.command("resume")
    started.tick()
    assert started.execution("gw-1").state is E.OFFERED


def test_promote_passes_the_wave_under_way_and_accepts_what_failed_in_it(started):
    started.report("gw-0", E.FAILED)
    started.tick()
    assert (started.view.state, started.view.waves[0].state) == (R.PAUSED, W.FAILED)

    started.command("promote")
    started.tick()

    assert started.view.state is R.RUNNING
    assert started.view.waves[0].promoted
    assert [one.state for one in started.view.executions[1:]] == [E.OFFERED] * 3


def test_promote_offers_what_a_retry_left_waiting_in_the_wave(started):
    started.report("gw-0", E.FAILED)
    started.tick()
    started.command("retry")
    started.command("promote")
    assert Offer("gw-0", 1, 2) in started.tick()


def test_promote_needs_a_wave_under_way(make_ledger):
    ledger = make_ledger([1, 3])
    ledger.command("start")
    with pytest.raises(ConflictError, match="no wave is under way"):
        ledger.command("promote")


def test_promoting_a_failure_of_an_earlier_wave_lets_the_later_one_go_on(started):
    _succeed(started, "gw-0")
    _pass_wave(started)
    started.report("gw-0", E.ROLLED_BACK)
    started.tick()
    assert (started.view.state, started.view.waves[0].state) == (R.PAUSED, W.FAILED)

    started.command("promote")
    for device in ("gw-1", "gw-2", "gw-3"):
        _succeed(started, device)
    _pass_wave(started)
    started.tick()

    assert started.view.state is R.SUCCEEDED


def test_resume_is_refused_while_a_wave_is_failed(started):
    started.report("gw-0", E.REJECTED)
    started.tick()
    with pytest.raises(ConflictError, match="wave 1 failed: promote, retry or roll back"):
        started.command("resume")


def test_resume_judges_an_inconclusive_wave_once_more(started):
    started.gates = "open"
    _succeed(started, "gw-0")
    _pass_wave(started)
    _pass_wave(started)
    assert (started.view.state, started.view.waves[0].state) == (R.PAUSED, W.INCONCLUSIVE)

    started.command("resume")
    started.gates = "good"
    started.tick()
    assert started.view.waves[0].state is W.PASSED


def test_retry_offers_a_device_of_an_earlier_wave_again_and_judges_that_wave_anew(make_ledger):
    ledger = make_ledger([2, 2])
    ledger.command("start")
    ledger.tick()
    _succeed(ledger, "gw-0")
    ledger.now_ms += 4_000_000
    ledger.tick()  # gw-1 was never there
    _pass_wave(ledger)
    assert ledger.view.waves[1].state is W.RELEASING

    actions = ledger.command("retry")
    ledger.tick()

    assert actions == [Requeue("gw-1", 1), SetWave(1, W.RELEASING), SetRollout(R.RUNNING, "")]
    assert (ledger.execution("gw-1").state, ledger.execution("gw-1").attempt) == (E.OFFERED, 2)
    _succeed(ledger, "gw-1")
    assert ledger.view.waves[0].state is W.SOAKING


def test_retry_does_not_pass_over_the_share_that_must_be_reached(make_ledger):
    """A wave that was judged once, and then reaches too few, is not judged by `resume`."""
    ledger = make_ledger([2], min_reached_ratio=1.0, on_failure="pause")
    ledger.gates = "open"
    ledger.command("start")
    ledger.tick()
    for device in ("gw-0", "gw-1"):
        _succeed(ledger, device)
    _pass_wave(ledger)
    _pass_wave(ledger)
    assert ledger.view.waves[0].state is W.INCONCLUSIVE
    ledger.report("gw-1", E.ROLLED_BACK)
    ledger.tick()
    ledger.command("retry")
    ledger.tick()
    ledger.now_ms += 4_000_000
    ledger.tick()
    assert ledger.view.waves[0].state is W.INCONCLUSIVE

    ledger.gates = "good"
    ledger.command("resume")
    ledger.tick()
    assert ledger.view.waves[0].state is W.INCONCLUSIVE


def test_abort_takes_back_what_was_not_begun_and_lets_the_rest_end(make_ledger):
    ledger = make_ledger([3, 1])
    ledger.command("start")
    ledger.tick()
    ledger.report("gw-0", E.DOWNLOADING)

    actions = ledger.command("abort")

    assert {one.device for one in actions if isinstance(one, TakeBack)} == {"gw-1", "gw-2"}
    states = [one.state for one in ledger.view.executions]
    assert states == [E.DOWNLOADING, E.CANCELLED, E.CANCELLED, E.CANCELLED]
    _succeed(ledger, "gw-0")
    assert ledger.execution("gw-0").state is E.SUCCEEDED


def test_rollback_leaves_alone_whoever_was_never_offered_the_release(started):
    actions = started.command("rollback")
    assert [one.device for one in actions if isinstance(one, TakeBack)] == ["gw-0"]


def test_rollback_after_abort_leaves_alone_whoever_was_cancelled(started):
    _succeed(started, "gw-0")
    started.command("abort")
    actions = started.command("rollback")
    assert [one.device for one in actions if isinstance(one, TakeBack)] == ["gw-0"]


def test_rollback_takes_back_a_device_that_waits_for_a_retry(started):
    started.report("gw-0", E.FAILED)
    started.tick()
    started.command("retry")
    actions = started.command("rollback")
    assert TakeBack("gw-0", 1, 2, 1) in actions
    started.tick()
    assert started.view.state is R.ROLLED_BACK


def test_a_failed_rollback_is_tried_again_with_a_new_attempt(started):
    """A device that refused to go back takes the same attempt for old news."""
    _succeed(started, "gw-0")
    started.command("rollback")
    started.now_ms += 1_000_000
    started.tick()
    assert started.view.state is R.ROLLBACK_FAILED

    actions = started.command("rollback")
    assert actions[:2] == [Requeue("gw-0", 1), TakeBack("gw-0", 1, 2, 1)]
    assert (started.execution("gw-0").state, started.execution("gw-0").attempt) == (
        E.ROLLING_BACK, 2,
    )  # fmt: skip
    started.now_ms += 1_000_000
    started.tick()
    assert started.view.state is R.ROLLBACK_FAILED
    assert TakeBack("gw-0", 1, 3, 1) in started.command("rollback")


def test_a_failed_rollback_that_came_about_after_all_needs_no_new_attempt(started):
    _succeed(started, "gw-0")
    started.command("rollback")
    started.now_ms += 1_000_000
    started.tick()
    assert started.view.state is R.ROLLBACK_FAILED

    started.runs["gw-0"] = 1
    started.command("rollback")
    started.tick()
    assert started.execution("gw-0").attempt == 1
    assert started.view.state is R.ROLLED_BACK
