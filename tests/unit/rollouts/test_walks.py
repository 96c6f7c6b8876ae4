"""Random histories: whatever devices and people do, and in whatever order, the rules hold.

`conftest.Ledger` checks every step against the tables and every plan against the rules: a paused
rollout offers nothing, no wave is passed over, a failed wave takes everyone back.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import ConflictError
from controller.rollouts.states import (
    ENDED,
    FINAL_ROLLOUT,
    UNDER_WAY,
    VERBS,
    ExecutionState,
    RolloutState,
    WaveState,
)

E, R, W = ExecutionState, RolloutState, WaveState

STEPS = 60
WEIGHTS = {"report": 3, "run": 1, "finish all": 2, "wait": 3, "verbs": 1, "gates": 1}
REPORTS = [*E, *sorted(UNDER_WAY) * 2, *[E.SUCCEEDED] * 6]
ASKED = [
    *VERBS,
    *["pause", "resume", "promote", "retry", "approve"] * 3,
]  # the others end the story


def _history(random):
    """Steps of one history. Lists drawn by Hypothesis are too short to reach the late states."""
    for kind in random.choices([*WEIGHTS], [*WEIGHTS.values()], k=STEPS):
        what = {
            "report": lambda: (random.randrange(12), random.choice(REPORTS)),
            "run": lambda: (random.randrange(12), random.choice([None, 1, 2, 2])),
            "finish all": lambda: (),
            "wait": lambda: (random.choice([1, 700, 700, 2000]),),
            "verbs": lambda: random.choices(ASKED, k=random.randint(1, 2)),
            "gates": lambda: (random.choice(["good", "good", "unjudged", "open", "bad", "none"]),),
        }[kind]()
        yield kind, what


FLEETS = st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any)
OPTIONS = st.fixed_dictionaries(
    {
        "on_failure": st.sampled_from(["rollback", "pause"]),
        "max_failed_ratio": st.sampled_from([0.0, 0.1, 0.5]),
        "min_reached_ratio": st.sampled_from([0.0, 0.5, 1.0]),
        "max_under_way": st.sampled_from([None, None, 1, 2]),
        "approvals": st.sampled_from([0, 0, 1, 2]),
        "max_attempts": st.sampled_from([1, 1, 2, 4]),
        "start_at": st.sampled_from([None, None, datetime(1970, 1, 1, 1, tzinfo=UTC)]),
        "maintenance_windows": st.sampled_from([(), (), ("00:00-23:00",)]),
    }
)
NEWCOMERS = st.frozensets(st.integers(0, 11), max_size=3)


def _do(ledger, kind, what):
    devices = [one.device for one in ledger.view.executions]
    match kind:
        case "report":
            number, state = what
            ledger.report(devices[number % len(devices)], state)
        case "run":
            number, sequence = what
            ledger.runs[devices[number % len(devices)]] = sequence
        case "finish all":
            for one in ledger.view.executions:
                if one.state in UNDER_WAY | {E.OFFERED}:
                    ledger.runs[one.device] = 2
                    ledger.report(one.device, E.SUCCEEDED)
        case "wait":
            ledger.now_ms += what[0] * 1000
        case "verbs":
            for verb in what:
                with contextlib.suppress(ConflictError):
                    ledger.command(verb, f"{what.count(verb)}{ledger.now_ms % 3}")
        case "gates":
            ledger.gates = what[0]


@settings(max_examples=150, deadline=None)
@given(
    sizes=FLEETS,
    newcomers=NEWCOMERS,
    approved=st.frozensets(st.integers(1, 4), max_size=2),
    options=OPTIONS,
    seed=st.integers(0, 2**32),
)
def test_every_history_keeps_the_rules_and_comes_to_an_end(
    make_ledger, sizes, newcomers, approved, options, seed
):
    ledger = make_ledger(sizes, newcomers, approved, **options)
    ledger.command("start")
    for kind, what in _history(Random(seed)):
        _do(ledger, kind, what)
        before = ledger.view
        actions = ledger.tick()
        if before.state is R.PAUSED:
            back = (R.ROLLING_BACK, R.ROLLED_BACK, R.ROLLBACK_FAILED)
            assert ledger.view.state in (R.PAUSED, *back)
        for one in ledger.seen().executions:  # what is believed is what runs
            if one.state in (E.SUCCEEDED, E.REVERTED):
                assert one.digest_agrees == (one.state is E.SUCCEEDED), one
        for wave, old in zip(ledger.view.waves, before.waves, strict=True):
            if old.state is W.INCONCLUSIVE:
                assert wave.state in (W.INCONCLUSIVE, W.FAILED), actions

    # no device says anything any more, and people only agree; one attempt a round at worst
    for number in range(30 + 4 * len(ledger.view.executions)):
        ledger.now_ms += 4_000_000
        with contextlib.suppress(ConflictError):
            ledger.command("approve", f"person {number}")
        ledger.tick()

    assert ledger.view.state in FINAL_ROLLOUT | {R.PAUSED}
    assert not any(
        one.state in UNDER_WAY | {E.OFFERED, E.ROLLING_BACK} for one in ledger.view.executions
    )
    if ledger.view.state in FINAL_ROLLOUT:
        assert all(one.state in ENDED for one in ledger.view.executions)
    if ledger.view.state is R.SUCCEEDED:
        assert all(wave.state is W.PASSED for wave in ledger.view.waves)
    if ledger.view.state is R.ROLLED_BACK:
        for one in ledger.view.executions:
            if one.state is E.ROLLED_BACK and one.previous_sequence is not None:
                assert one.assigned_rollback


@settings(max_examples=100, deadline=None)
@given(sizes=FLEETS, options=OPTIONS, late=st.lists(st.booleans(), min_size=16, max_size=16))
def test_a_good_release_reaches_every_device_that_can_be_reached(make_ledger, sizes, options, late):
    ledger = make_ledger(sizes, frozenset(), **options | {"min_reached_ratio": 0.0})
    ledger.command("start")
    for number in range(400):
        with contextlib.suppress(ConflictError):
            ledger.command("approve", f"person {number}")
        ledger.tick()
        if ledger.view.state is R.SUCCEEDED:
            break
        for number, one in enumerate(ledger.view.executions):
            if one.state is E.OFFERED and not late[number]:
                ledger.report(one.device, E.ACCEPTED)
            elif one.state in UNDER_WAY:
                ledger.runs[one.device] = 2
                ledger.report(one.device, E.SUCCEEDED)
        ledger.now_ms += 700_000

    assert ledger.view.state is R.SUCCEEDED
    for number, one in enumerate(ledger.view.executions):
        assert one.state is (E.TIMED_OUT if late[number] else E.SUCCEEDED)
