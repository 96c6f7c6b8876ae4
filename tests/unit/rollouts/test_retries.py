"""Attempts by themselves: when, how often, and for whom."""

from __future__ import annotations

import pytest
from msgspec.structs import replace as changed

from controller.rollouts.retries import wait_seconds
from controller.rollouts.states import ExecutionState, RolloutState, WaveState
from controller.rollouts.values import Offer, Requeue

E, R, W = ExecutionState, RolloutState, WaveState


@pytest.fixture
def started(make_ledger):
    """A canary of one and a wave of three; each device has three attempts."""
    ledger = make_ledger([1, 3], max_attempts=3, retry_base_seconds=60.0, retry_cap_seconds=100.0)
    ledger.command("start")
    ledger.tick()
    return ledger


def test_a_failure_that_may_pass_is_tried_again_after_a_wait(started):
    started.report("gw-0", E.FAILED)
    assert started.tick() == []
    assert started.view.waves[0].state is W.RELEASING

    started.now_ms += 60_000
    actions = started.tick()

    assert [one for one in actions if isinstance(one, Requeue | Offer)] == [
        Requeue("gw-0", 1), Offer("gw-0", 1, 2),
    ]  # fmt: skip


def test_a_device_sits_out_after_its_last_attempt(started):
    for _ in range(3):
        started.report("gw-0", E.FAILED)
        started.now_ms += 100_000
        started.tick()
    assert started.execution("gw-0").attempt == 3
    assert (started.view.state, started.view.waves[0].state) == (R.ROLLED_BACK, W.FAILED)


def test_what_is_wrong_for_good_is_not_tried_again(started):
    started.report("gw-0", E.REJECTED)
    started.tick()
    assert started.view.state is R.ROLLED_BACK
    assert started.execution("gw-0").attempt == 1


def test_a_device_that_was_not_reached_is_tried_again_and_may_come_meanwhile(started):
    started.now_ms += 3_601_000
    started.tick()
    assert started.execution("gw-0").state is E.TIMED_OUT

    started.runs["gw-0"] = 2
    started.report("gw-0", E.SUCCEEDED)
    started.tick()

    one = started.execution("gw-0")
    assert (one.state, one.attempt) == (E.SUCCEEDED, 1)


def test_a_paused_rollout_waits_with_the_offer(started):
    started.report("gw-0", E.FAILED)
    started.command("pause")
    started.now_ms += 100_000
    actions = started.tick()
    assert actions == [Requeue("gw-0", 1)]
    started.command("resume")
    assert Offer("gw-0", 1, 2) in started.tick()


def test_waits_double_up_to_the_cap_and_differ_by_device(make_ledger):
    ledger = make_ledger([50], max_attempts=20, retry_base_seconds=10.0, retry_cap_seconds=60.0)
    for attempt, longest in ((1, 10), (2, 20), (3, 40), (4, 60), (19, 60)):
        waits = {
            wait_seconds(ledger.view, changed(one, attempt=attempt))
            for one in ledger.view.executions
        }
        assert len(waits) == 50
        assert longest / 2 <= min(waits) < max(waits) <= longest
        again = {
            wait_seconds(ledger.view, changed(one, attempt=attempt))
            for one in ledger.view.executions
        }
        assert again == waits
