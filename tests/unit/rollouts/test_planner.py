"""The planner at its limits: timers, ratios, late devices, gates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from controller.rollouts.planner import plan
from controller.rollouts.states import (
    UNDER_WAY,
    ExecutionState,
    RolloutState,
    WaveState,
    follows,
)
from controller.rollouts.values import SetExecution, SetRollout

E, R, W = ExecutionState, RolloutState, WaveState


def _start(ledger):
    ledger.command("start")
    ledger.tick()
    return ledger


def _finish(ledger, *devices):
    for device in devices:
        ledger.runs[device] = 2
        ledger.report(device, E.SUCCEEDED)
    ledger.tick()


def test_success_is_believed_only_when_the_running_digest_agrees(make_ledger):
    ledger = _start(make_ledger([1]))
    ledger.report("gw-0", E.SUCCEEDED)
    ledger.tick()
    assert ledger.execution("gw-0").state is E.SOAKING
    ledger.runs["gw-0"] = 2
    ledger.tick()
    assert ledger.execution("gw-0").state is E.SUCCEEDED


@pytest.mark.parametrize("state", [E.OFFERED, *sorted(UNDER_WAY)])
def test_every_open_execution_has_a_time_limit(make_ledger, state):
    ledger = _start(make_ledger([1], offer_seconds=100.0, step_seconds=50.0))
    if state is not E.OFFERED:
        ledger.report("gw-0", state)
    limit = 100_000 if state is E.OFFERED else 50_000
    ledger.now_ms += limit
    ledger.tick()
    assert ledger.execution("gw-0").state is state
    ledger.now_ms += 1
    ledger.tick()
    assert ledger.execution("gw-0").state is E.TIMED_OUT


def test_a_long_probation_is_waited_for(make_ledger):
    ledger = _start(make_ledger([1], step_seconds=50.0))
    ledger.view = replace(ledger.view, probation_seconds=1000.0)
    ledger.report("gw-0", E.SOAKING)
    ledger.now_ms += 2_000_000
    ledger.tick()
    assert ledger.execution("gw-0").state is E.SOAKING


def test_a_shadow_run_that_was_asked_for_is_waited_for(make_ledger):
    ledger = _start(make_ledger([1], step_seconds=50.0, shadow_seconds=1000.0))
    ledger.report("gw-0", E.SHADOWING)
    ledger.now_ms += 1_000_000
    ledger.tick()
    assert ledger.execution("gw-0").state is E.SHADOWING
    ledger.now_ms += 60_000
    ledger.tick()
    assert ledger.execution("gw-0").state is E.TIMED_OUT


def test_each_step_starts_the_limit_anew(make_ledger):
    ledger = _start(make_ledger([1], step_seconds=50.0))
    for state in (E.ACCEPTED, E.DOWNLOADING, E.STAGED, E.VERIFYING, E.ACTIVATING, E.SOAKING):
        ledger.report("gw-0", state)
        ledger.now_ms += 50_000
        ledger.tick()
        assert ledger.execution("gw-0").state is state


def test_a_device_that_was_given_up_counts_when_it_comes_after_all(make_ledger):
    ledger = _start(make_ledger([2, 1], min_reached_ratio=0.5))
    _finish(ledger, "gw-0")
    ledger.now_ms += 4_000_000
    ledger.tick()
    assert ledger.execution("gw-1").state is E.TIMED_OUT
    _finish(ledger, "gw-1")
    assert ledger.execution("gw-1").state is E.SUCCEEDED


def test_a_device_that_was_given_up_cannot_hold_its_wave_by_beginning_again():
    assert not any(follows(E.TIMED_OUT, state) for state in UNDER_WAY)


@pytest.mark.parametrize(
    "reported", [E.QUEUED, E.OFFERED, E.TIMED_OUT, E.CANCELLED, E.ROLLING_BACK]
)
@pytest.mark.parametrize("before", list(E))
def test_a_device_cannot_report_what_is_not_its_to_say(before, reported):
    assert not follows(before, reported)


def test_no_report_counts_before_the_release_was_offered():
    assert not any(follows(E.QUEUED, state) for state in E)


def test_reports_out_of_order_never_lead_back(make_ledger):
    ledger = _start(make_ledger([1]))
    for state in (E.ACCEPTED, E.STAGED, E.DOWNLOADING, E.ACCEPTED):
        ledger.report("gw-0", state)
    assert ledger.execution("gw-0").state is E.STAGED


@pytest.mark.parametrize(
    ("size", "ratio", "failed", "fails"),
    [(1, 0.1, 1, True), (9, 0.1, 1, True), (10, 0.1, 1, False), (10, 0.1, 2, True),
     (4, 0.0, 1, True), (4, 1.0, 4, False)],
)  # fmt: skip
def test_a_wave_fails_beyond_its_share_of_failed_devices(make_ledger, size, ratio, failed, fails):
    ledger = _start(make_ledger([size, 1], max_failed_ratio=ratio, on_failure="pause"))
    for number in range(failed):
        ledger.report(f"gw-{number}", E.FAILED)
    ledger.tick()
    assert (ledger.view.waves[0].state is W.FAILED) is fails


@pytest.mark.parametrize(("reached", "state"), [(1, W.INCONCLUSIVE), (2, W.SOAKING)])
def test_a_wave_that_reaches_too_few_is_inconclusive(make_ledger, reached, state):
    ledger = _start(make_ledger([4], min_reached_ratio=0.5))
    _finish(ledger, *(f"gw-{number}" for number in range(reached)))
    ledger.now_ms += 4_000_000
    ledger.tick()
    assert ledger.view.waves[0].state is state


def test_a_failing_gate_takes_everyone_back_during_the_soak_and_while_paused(make_ledger):
    ledger = _start(make_ledger([1, 1]))
    _finish(ledger, "gw-0")
    ledger.command("pause")
    ledger.gates = "bad"
    ledger.tick()
    assert ledger.view.state is R.ROLLING_BACK
    ledger.runs["gw-0"] = 1
    ledger.tick()
    assert ledger.view.state is R.ROLLED_BACK


@pytest.mark.parametrize("gates", ["open", "none"])
def test_what_cannot_be_judged_holds_and_asks(make_ledger, gates):
    ledger = _start(make_ledger([1, 1], soak_seconds=10.0, evaluate_seconds=20.0))
    ledger.gates = gates
    _finish(ledger, "gw-0")
    ledger.now_ms += 10_000
    ledger.tick()
    ledger.now_ms += 19_999
    ledger.tick()
    assert ledger.view.waves[0].state is W.EVALUATING
    ledger.now_ms += 1
    [_, paused] = ledger.tick()
    assert isinstance(paused, SetRollout)
    assert paused.reason.startswith("inconclusive, promote or roll back: ")
    ledger.now_ms += 10**9
    assert ledger.tick() == []


def test_a_wave_without_devices_passes_at_once(make_ledger):
    ledger = _start(make_ledger([0, 0, 1]))
    assert [one.state for one in ledger.view.waves] == [W.PASSED, W.PASSED, W.RELEASING]


def test_a_device_that_ran_nothing_before_keeps_the_release(make_ledger):
    ledger = _start(make_ledger([1], newcomers=frozenset({0})))
    _finish(ledger, "gw-0")
    ledger.command("rollback")
    ledger.tick()
    assert ledger.execution("gw-0").state is E.CANCELLED
    assert ledger.view.state is R.ROLLED_BACK


def test_a_promoted_last_wave_is_waited_for(make_ledger):
    ledger = _start(make_ledger([2]))
    ledger.report("gw-0", E.DOWNLOADING)
    ledger.command("promote")
    ledger.tick()
    assert ledger.view.state is R.RUNNING
    _finish(ledger, "gw-0", "gw-1")
    assert ledger.view.state is R.SUCCEEDED


def test_the_reason_names_a_few_devices_and_counts_the_rest(make_ledger):
    ledger = _start(make_ledger([8], max_failed_ratio=0.0, on_failure="pause"))
    for number in range(8):
        ledger.report(f"gw-{number}", E.FAILED)
    actions = plan(ledger.seen(), ledger.now_ms)
    assert actions[0].reason.startswith("8 of 8 devices failed, 0 allowed: gw-0: ")
    assert actions[0].reason.endswith("and 3 more")


@pytest.mark.parametrize(("runs", "words"), [(1, "runs 1"), (None, "runs nothing")])
def test_a_device_that_runs_something_else_after_success_is_reverted(make_ledger, runs, words):
    ledger = _start(make_ledger([1, 1], on_failure="pause"))
    _finish(ledger, "gw-0")
    ledger.runs["gw-0"] = runs
    actions = plan(ledger.seen(), ledger.now_ms)
    sentence = f"gw-0: {words}, 2 was given and had succeeded"
    assert actions == [SetExecution("gw-0", 1, E.REVERTED, "reverted", sentence)]
    ledger.tick()
    assert ledger.execution("gw-0").state is E.REVERTED
    assert (ledger.view.state, ledger.view.waves[0].state) == (R.PAUSED, W.FAILED)


def test_a_reverted_device_of_a_wave_that_passed_takes_everyone_back(make_ledger):
    ledger = _start(make_ledger([1, 1]))
    _finish(ledger, "gw-0")
    ledger.now_ms += 600_000
    ledger.tick()
    assert ledger.view.waves[0].state is W.PASSED
    ledger.runs["gw-0"] = 1
    ledger.tick()
    assert (ledger.view.state, ledger.view.waves[0].state) == (R.ROLLED_BACK, W.FAILED)
    assert ledger.execution("gw-0").state is E.ROLLED_BACK


def test_a_reverted_device_that_runs_the_release_again_has_succeeded_again(make_ledger):
    ledger = _start(make_ledger([10], max_failed_ratio=0.1))
    _finish(ledger, *(f"gw-{number}" for number in range(10)))
    ledger.runs["gw-3"] = None
    ledger.tick()
    assert ledger.execution("gw-3").state is E.REVERTED
    ledger.runs["gw-3"] = 2
    ledger.tick()
    assert ledger.execution("gw-3").state is E.SUCCEEDED
    assert ledger.view.state is R.RUNNING


def test_a_device_that_another_rollout_moved_is_not_reverted(make_ledger):
    ledger = _start(make_ledger([1]))
    _finish(ledger, "gw-0")
    ledger.now_ms += 600_000
    ledger.tick()
    assert ledger.view.state is R.SUCCEEDED
    moved = changed(ledger.execution("gw-0"), assigned_update=False)
    ledger.view = replace(ledger.view, executions=(moved,))
    ledger.runs["gw-0"] = 1
    assert ledger.tick() == []
