"""Merging unsent messages: every count is the sum, and what differs in kind stays apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.merge import merge_messages
from shoal.protocol.messages import (
    LATENCY_EDGES_US,
    Event,
    FieldStatistics,
    Statistics,
    Window,
    decode,
    encode,
)
from shoal.protocol.topics import Channel

HEADER: dict[str, Any] = {
    "device": "gw-1",
    "site": "jfk",
    "boot_id": "b1",
    "seq": 0,
    "ts_ms": 2000,
}
RELEASE: dict[str, Any] = {
    "model": "pump",
    "version": "1.0.0",
    "release_sequence": 1,
    "manifest": "a" * 64,
    "start_ms": 1000,
    "end_ms": 2000,
}

reasons = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 1000))
histograms = st.lists(st.integers(0, 1000), max_size=len(LATENCY_EDGES_US) + 1)


def _window(**changes: Any) -> Window:
    return Window(**{**HEADER, **RELEASE, "in_count": 0, "ok": 0, **changes})


def _statistics(**changes: Any) -> Statistics:
    return Statistics(**{**HEADER, **RELEASE, "rows": 0, **changes})


@st.composite
def windows(draw):
    ok, dropped, failed = draw(st.integers(0, 1000)), draw(reasons), draw(reasons)
    start = draw(st.integers(0, 10**6))
    return _window(
        start_ms=start,
        end_ms=start + draw(st.integers(0, 10**6)),
        in_count=ok + sum(dropped.values()) + sum(failed.values()),
        ok=ok,
        dropped=dropped,
        failed=failed,
        labels=draw(reasons),
        latency_counts=draw(histograms),
        latency_max_us=draw(st.floats(0, 1e7)),
        worker_restarts=draw(st.integers(0, 9)),
    )


def _sum(*counts):
    return {
        key: sum(one.get(key, 0) for one in counts)
        for key in {key for one in counts for key in one}
    }


def _padded(counts):
    return [*counts, *[0] * (len(LATENCY_EDGES_US) + 1 - len(counts))]


@given(windows(), windows())
def test_a_merged_window_holds_the_sums_of_both(a, b):
    both = merge_messages(a, b)
    assert isinstance(both, Window)
    assert both.start_ms == min(a.start_ms, b.start_ms)
    assert both.end_ms == max(a.end_ms, b.end_ms)
    for name in ("in_count", "ok", "worker_restarts"):
        assert getattr(both, name) == getattr(a, name) + getattr(b, name)
    for name in ("dropped", "failed", "labels"):
        assert getattr(both, name) == _sum(getattr(a, name), getattr(b, name))
    assert both.in_count == both.ok + sum(both.dropped.values()) + sum(both.failed.values())
    assert both.latency_max_us == max(a.latency_max_us, b.latency_max_us)
    summed = [
        x + y for x, y in zip(_padded(a.latency_counts), _padded(b.latency_counts), strict=True)
    ]
    assert _padded(both.latency_counts) == summed


@given(windows(), windows())
def test_percentiles_are_read_from_the_summed_histogram(a, b):
    both = merge_messages(a, b)
    assert isinstance(both, Window)
    total, seen = sum(both.latency_counts), 0
    ranks = {0.5: both.latency_p50_us, 0.95: both.latency_p95_us, 0.99: both.latency_p99_us}
    edges = (*LATENCY_EDGES_US, LATENCY_EDGES_US[-1])
    for share, found in ranks.items():
        below = [sum(both.latency_counts[: i + 1]) >= share * total for i in range(len(edges))]
        filled = [bool(count) for count in _padded(both.latency_counts)]
        expected = [
            edge for edge, ok, here in zip(edges, below, filled, strict=True) if ok and here
        ]
        assert found == (expected[0] if total else 0.0)
        assert found >= seen
        seen = found


@given(windows(), windows(), windows())
def test_the_order_of_merging_does_not_matter_for_counts(a, b, c):
    left = merge_messages(merge_messages(a, b), c)
    right = merge_messages(a, merge_messages(b, c))
    assert left == right


@given(windows(), windows())
def test_merging_leaves_both_parts_alone(a, b):
    before = encode(a), encode(b)
    merge_messages(a, b)
    assert (encode(a), encode(b)) == before


def _field(name, count, mean=0.0, bins=()):
    return FieldStatistics(name=name, count=count, mean=mean, bins=list(bins))


def test_merged_statistics_hold_all_rows():
    a = _statistics(rows=2, lost=1, baseline="x", features=[_field("t", 2, 1.0, [2, 0])])
    b = _statistics(rows=6, lost=2, baseline="x", features=[_field("t", 6, 5.0, [2, 4])])
    both = merge_messages(a, b)
    assert isinstance(both, Statistics)
    assert (both.rows, both.lost, both.outputs) == (8, 3, [])
    assert (both.features[0].count, both.features[0].mean) == (8, 4.0)
    assert both.features[0].bins == [4, 4]


@pytest.mark.parametrize("order", [1, -1])
def test_statistics_of_a_lost_worker_do_not_empty_the_others(order):
    """A worker that died tells no fields, only how many rows were lost with it."""
    whole = _statistics(rows=5, features=[_field("t", 5)], outputs=[_field("score", 5)])
    lost = _statistics(rows=0, lost=7)
    both = merge_messages(*(whole, lost)[::order])
    assert isinstance(both, Statistics)
    assert (both.rows, both.lost) == (5, 7)
    assert (both.features, both.outputs) == (whole.features, whole.outputs)


@pytest.mark.parametrize(
    "change", [{"model": "fan"}, {"manifest": "b" * 64}, {"slot": "probation"}]
)
@pytest.mark.parametrize("make", [_window, _statistics])
def test_windows_of_other_releases_stay_apart(make, change):
    assert merge_messages(make(), make(**change)) is None
    assert merge_messages(make(), make()) is not None


def test_statistics_in_other_bins_stay_apart():
    assert merge_messages(_statistics(baseline="x"), _statistics(baseline="y")) is None


@pytest.mark.parametrize(
    "pair",
    [
        (_window(), _statistics()),
        (_statistics(), _window()),
        (Event(**HEADER, kind="agent", code="x"), Event(**HEADER, kind="agent", code="x")),
    ],
)
def test_other_kinds_are_never_merged(pair):
    assert merge_messages(*pair) is None


@given(windows(), windows())
def test_a_merged_window_can_be_sent(a, b):
    both = merge_messages(a, b)
    assert both is not None
    assert decode(Channel.WINDOW, encode(both)) == both
