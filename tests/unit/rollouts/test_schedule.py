"""When offers go out, and to how many at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from controller.rollouts.schedule import BUSY, opens_in, within_caps
from controller.rollouts.states import ExecutionState, RolloutState, WaveState
from controller.rollouts.values import ExecutionView, Options, WaveSpec, parse_specification
from controller.rollouts.waves import MAX_WAVES, cut_waves, grow, hold_back
from shoal.errors import InvalidInputError

E, R, W = ExecutionState, RolloutState, WaveState


def _ms(text):
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        ("2026-11-28T21:00+01:00", 1.0),  # a Saturday
        ("2026-11-28T22:00+01:00", 0.0),
        ("2026-11-30T03:59+01:00", 0.0),  # Sunday's, past midnight
        ("2026-11-30T04:00+01:00", 5 * 24 + 18.0),
        ("2026-10-24T20:00+02:00", 2.0),  # the night the clock goes back
        ("2026-10-25T03:59+01:00", 0.0),
    ],
)
def test_windows_are_by_the_clock_of_their_time_zone(now, hours):
    options = Options(maintenance_windows=("sat,sun 22:00-04:00",), time_zone="Europe/Berlin")
    assert opens_in(options, _ms(now)) == hours * 3600


def test_a_start_time_is_waited_for_and_then_the_window_after_it():
    options = Options(start_at=datetime(2026, 11, 28, 12, tzinfo=UTC))
    assert opens_in(options, _ms("2026-11-28T11:00+00:00")) == 3600
    assert opens_in(options, _ms("2026-11-28T12:00+00:00")) == 0
    both = Options(
        start_at=datetime(2026, 11, 28, 12, tzinfo=UTC), maintenance_windows=("13:00-14:00",)
    )
    assert opens_in(both, _ms("2026-11-28T11:30+00:00")) == 1.5 * 3600


EXECUTIONS = st.lists(
    st.tuples(st.sampled_from(E), st.sampled_from(["jfk", "lga", "ulm"])), max_size=30
).map(
    lambda found: [
        ExecutionView(f"gw-{n}", 1, 1, state, 0, site) for n, (state, site) in enumerate(found)
    ]
)


@given(EXECUTIONS, st.none() | st.integers(1, 9), st.none() | st.integers(1, 4))
def test_caps_are_kept_and_leave_no_room_unused(executions, most, per_site):
    options = Options(max_under_way=most, max_under_way_per_site=per_site)
    waiting = [one for one in executions if one.state is E.QUEUED]
    busy = [one for one in executions if one.state in BUSY]
    chosen = within_caps(options, executions, waiting)
    assert [one for one in waiting if one in chosen] == chosen
    sites = Counter(one.site for one in busy)
    for one in chosen:
        sites[one.site] += 1
        assert sites[one.site] <= (per_site or 99)
    assert not chosen or sites.total() <= (most or 99)
    full = most is not None and sites.total() >= most
    for one in waiting:
        assert one in chosen or full or (per_site and sites[one.site] >= per_site)


def test_a_wave_goes_out_few_at_a_time_and_soaks_when_all_have_ended(make_ledger):
    ledger = make_ledger([5], max_under_way=2)
    ledger.command("start")
    most = 0
    for _ in range(6):
        ledger.tick()
        under_way = [one for one in ledger.view.executions if one.state in BUSY]
        most = max(most, len(under_way))
        if not under_way:
            break
        assert ledger.view.waves[0].state is W.RELEASING
        ledger.runs[under_way[0].device] = 2
        ledger.report(under_way[0].device, E.SUCCEEDED)
    assert most == 2
    assert ledger.view.waves[0].state is W.SOAKING


def test_nothing_is_offered_outside_the_window_and_what_was_offered_goes_on(make_ledger):
    ledger = make_ledger([2, 1], maintenance_windows=("01:00-02:00",), max_under_way=1)
    day_ms = 86_400_000
    ledger.now_ms = 20_000 * day_ms
    executions = tuple(changed(one, updated_ms=ledger.now_ms) for one in ledger.view.executions)
    ledger.view = replace(ledger.view, executions=executions)
    ledger.command("start")
    assert ledger.tick() == []
    ledger.now_ms += 3_600_000
    ledger.tick()
    assert ledger.execution("gw-0").state is E.OFFERED
    ledger.now_ms += 3_600_000
    ledger.runs["gw-0"] = 2
    ledger.report("gw-0", E.SUCCEEDED)
    ledger.tick()
    assert [one.state for one in ledger.view.executions] == [E.SUCCEEDED, E.QUEUED, E.QUEUED]
    ledger.now_ms += day_ms - 3_600_000
    ledger.tick()
    assert ledger.execution("gw-1").state is E.OFFERED


def test_what_waits_in_a_promoted_wave_is_offered_later(make_ledger):
    ledger = make_ledger([3], max_under_way=1)
    ledger.command("start")
    ledger.tick()
    ledger.command("promote")
    for _ in range(5):
        for one in ledger.view.executions:
            if one.state in BUSY:
                ledger.runs[one.device] = 2
                ledger.report(one.device, E.SUCCEEDED)
        ledger.tick()
    assert ledger.view.state is R.SUCCEEDED
    assert {one.state for one in ledger.view.executions} == {E.SUCCEEDED}


@given(st.integers(1, 5000), st.integers(1, 50), st.floats(1, 5), st.none() | st.integers(1, 900))
def test_growing_waves_hold_every_device_once(total, base, factor, cap):
    specs = grow([WaveSpec(name="w", base=base, factor=factor, cap=cap)], total)
    sizes = [one.devices for one in specs]
    assert sum(sizes) == total
    assert len(sizes) <= MAX_WAVES
    assert sizes[:-1] == sorted(sizes[:-1])
    if len(sizes) < MAX_WAVES:
        assert all(size <= (cap or total) for size in sizes)


def test_a_wave_of_a_selector_takes_who_matches_and_is_in_none_before():
    order = [f"gw-{n}" for n in range(8)]
    chosen = {"tag:lab": frozenset({"gw-0", "gw-3", "gw-5"})}
    specs = [
        WaveSpec(name="a", devices=1),
        WaveSpec(name="b", selector="tag:lab"),
        WaveSpec(name="c", share=0.5),
        WaveSpec(name="d", share=1.0),
    ]
    found = cut_waves(specs, order, chosen)
    assert found == [["gw-0"], ["gw-3", "gw-5"], ["gw-1"], ["gw-2", "gw-4", "gw-6", "gw-7"]]
    few = cut_waves([WaveSpec(name="b", selector="tag:lab", devices=2)], order, chosen)
    assert few == [["gw-0", "gw-3"]]


@given(st.integers(1, 300), st.floats(0, 0.5))
def test_the_control_group_leaves_somebody_for_the_waves(count, share):
    order = [f"gw-{n}" for n in range(count)]
    drawn, control = hold_back(order, share)
    assert drawn + control == order
    assert drawn
    assert len(control) <= share * count + 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time_zone": "Mars/Olympus"}, "time_zone 'Mars/Olympus': expected a name such as"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"maintenance_windows": ["25:00-26:00"]}, "maintenance_windows: '25:00-26:00'"),
        ({"start_at": "2026-11-28T12:00"}, "start_at"),
        ({"start_at": "soon"}, "start_at"),
        ({"control_share": 0.6}, "control_share"),
        ({"max_under_way": 0}, "max_under_way"),
        ({"waves": [{"name": "a", "selector": "site"}]}, "character 1"),
        ({"waves": [{"name": "a", "selector": "*", "share": 0.5}]}, "got share and selector"),
        ({"waves": [{"name": "a", "base": 1, "devices": 2}]}, "got devices and base"),
    ],
)
def test_a_wrong_schedule_is_refused_by_its_field(change, words):
    with pytest.raises(InvalidInputError) as error:
        parse_specification({"model": "m", "version": "1", **change})
    assert words in error.value.sentence
