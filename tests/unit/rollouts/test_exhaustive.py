"""Every history of a small rollout, to a depth: three devices, two waves, every order of events.

States that look alike are visited once, so that all histories fit; the ledger checks every step
against the tables and every plan against the rules.
"""

from __future__ import annotations

from collections import deque

import pytest

from controller.errors import ConflictError
from controller.rollouts.states import (
    FINAL_ROLLOUT,
    UNDER_WAY,
    ExecutionState,
    RolloutState,
    WaveState,
)
from controller.rollouts.values import Offer, SetWave

E, R, W = ExecutionState, RolloutState, WaveState

DEPTH = 9
DEVICES = ("gw-0", "gw-1", "gw-2")
REPORTS = (E.ACCEPTED, E.SUCCEEDED, E.FAILED, E.ROLLED_BACK)
EVENTS = [
    *(("report", device, state) for device in DEVICES for state in REPORTS),
    *(("returns", device) for device in DEVICES),
    ("wait",),
    *(("gates", gates) for gates in ("good", "open", "bad")),
    *(("verb", verb) for verb in ("pause", "resume", "promote", "retry", "rollback")),
]
"""What may happen next, in every state."""


def _happen(ledger, event):
    match event:
        case ("report", device, state):
            if state is E.SUCCEEDED:
                ledger.runs[device] = 2
            if state is E.ROLLED_BACK:
                ledger.runs[device] = 1
            ledger.report(device, state)
        case ("returns", device):
            ledger.runs[device] = 1
        case ("wait",):
            ledger.now_ms += 4_000_000
        case ("gates", gates):
            ledger.gates = gates
        case ("verb", verb):
            try:
                ledger.command(verb)
            except ConflictError:
                return None
    return ledger.tick()


def _key(ledger):
    """What of a state can make a difference later: times only by how long they have passed."""
    now_ms = ledger.now_ms

    def age(ms):
        return None if ms is None else min(now_ms - ms, 4_000_000)

    view = ledger.view
    return (
        view.state,
        ledger.gates,
        tuple(sorted(ledger.runs.items())),
        tuple((w.state, w.promoted, age(w.soaking_ms), age(w.evaluating_ms)) for w in view.waves),
        tuple(
            (x.device, x.state, min(x.attempt, 3), age(x.updated_ms), x.reported_success,
             x.assigned_update, x.assigned_rollback, x.previous_sequence)
            for x in view.executions
        ),
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"max_attempts": 2, "max_under_way": 1}])
def test_no_history_of_a_small_rollout_breaks_a_rule(make_ledger, options):
    first = make_ledger([1, 2], soak_seconds=600.0, max_failed_ratio=0.5, **options)
    first.command("start")
    first.tick()
    seen, queue = {_key(first)}, deque([(first.view, dict(first.runs), first.now_ms, "good", 0)])
    while queue:
        view, runs, now_ms, gates, depth = queue.popleft()
        for event in EVENTS:
            ledger = first
            ledger.view, ledger.runs = view, dict(runs)
            ledger.now_ms, ledger.gates = now_ms, gates
            actions = _happen(ledger, event)
            if actions is None:
                continue
            _check(view, ledger, actions, event, options)
            key = _key(ledger)
            if key not in seen and depth + 1 < DEPTH and len(seen) < MOST:
                seen.add(key)
                queue.append(
                    (ledger.view, dict(ledger.runs), ledger.now_ms, ledger.gates, depth + 1)
                )
    assert len(seen) > 2000


MOST = 3_000


def _check(before, ledger, actions, event, options):
    view = ledger.view
    offered = [one.device for one in actions if isinstance(one, Offer)]
    assert len(offered) == len(set(offered)), "offered twice at once"
    busy = [one for one in view.executions if one.state in UNDER_WAY | {E.OFFERED}]
    assert len(busy) <= options.get("max_under_way", 3), "more under way than may be"
    if event[0] != "verb":
        if before.state in FINAL_ROLLOUT:
            assert view.state is before.state, "what has ended begins again"
        if before.state is R.PAUSED:
            assert not offered, "a paused rollout offers"
        for old, new in zip(before.waves, view.waves, strict=True):
            if old.state is W.INCONCLUSIVE:
                assert new.state is not W.PASSED, "inconclusive promotes itself"
    for one in actions:
        if isinstance(one, SetWave) and one.state is W.PASSED and event[0] != "verb":
            assert ledger.gates == "good", "a wave passes over its gates"
    if view.state is R.ROLLED_BACK and before.state is not R.ROLLED_BACK:
        for one in ledger.seen().executions:
            had = one.previous_sequence is not None and one.state is not E.CANCELLED
            assert not had or one.assigned_rollback, f"{one.device} was not told to go back"
            assert not had or one.active_sequence == 1, f"{one.device} is not back"
