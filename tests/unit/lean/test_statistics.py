"""Counting without numpy gives what `shoal.statistics` gives, however rows arrive."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.lean import statistics as lean
from shoal import statistics as full

NAMES = ["a", "b", "c"]
EDGES = [[-10.0, -1.0, 0.0, 2.5, 100.0], [], [0.0, 1e-3]]
RANGES = [(-50.0, 50.0), (None, 10.0), (None, None)]
readings = st.one_of(
    st.floats(-1e6, 1e6, width=32),
    st.sampled_from([0.0, -1.0, 2.5, 50.0, 10.0, math.nan, math.inf, -math.inf]),
)
tables = arrays(np.float32, st.tuples(st.integers(0, 200), st.just(3)), elements=readings)


def _assert_same(found, expected):
    assert [one.name for one in found] == [one.name for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("count", "missing", "nonfinite", "out_of_range", "bins", "min", "max"):
            assert getattr(ours, name) == getattr(theirs, name), (ours.name, name)
        largest = max(abs(theirs.min or 0.0), abs(theirs.max or 0.0))
        assert ours.mean == pytest.approx(theirs.mean, rel=1e-5, abs=1e-6 * largest + 1e-9)
        assert ours.m2 == pytest.approx(theirs.m2, rel=1e-5, abs=1e-6 * largest**2 + 1e-9)


@given(tables, st.integers(1, 90))
def test_counts_moments_and_bins_agree(table, batch):
    ours, theirs = (kind.Accumulator(NAMES, EDGES, RANGES) for kind in (lean, full))
    for start in range(0, len(table), batch):
        part = table[start : start + batch]
        ours.update(part.tolist())
        theirs.update(part)
    _assert_same(ours.take(), theirs.take())
    assert [one.count for one in ours.take()] == [0, 0, 0]


@given(tables)
def test_projections_agree(table):
    random = np.random.default_rng(5)
    rows = random.normal([1, -3, 10], [2, 1, 5], (500, 3)).astype(np.float32)
    baseline = full.make_baseline(rows, rows[:, :1], NAMES, ["y"])
    # a value at an edge may fall to either side: mixtures are rounded differently
    ours, theirs = (kind.Profiler(NAMES, RANGES, baseline) for kind in (lean, full))
    for profiler, given_rows in ((ours, table.tolist()), (theirs, table)):
        with np.errstate(all="ignore"):
            profiler.update(given_rows)
    found, expected = ours.take(), theirs.take()
    _assert_same(found[:3], expected[:3])
    for mine, other in zip(found[3:], expected[3:], strict=True):
        assert (mine.name, mine.count + mine.nonfinite, mine.missing) == (
            other.name,
            other.count + other.nonfinite,
            other.missing,
        )
        assert sum(mine.bins) == mine.count
        largest = max(abs(other.min or 0.0), abs(other.max or 0.0))
        if mine.count == other.count:
            assert mine.mean == pytest.approx(other.mean, rel=1e-3, abs=1e-3 * largest + 1e-6)


def test_a_baseline_of_other_features_gives_no_projections():
    rows = np.random.default_rng(5).normal(0, 1, (100, 3)).astype(np.float32)
    baseline = full.make_baseline(rows, rows[:, :1], ["x", "y", "z"], ["out"])
    profiler = lean.Profiler(NAMES, RANGES, baseline)
    profiler.update(rows.tolist())
    assert [one.name for one in profiler.take()] == NAMES
