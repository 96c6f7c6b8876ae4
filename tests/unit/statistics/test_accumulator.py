"""The accumulator counts what numpy counts on all rows at once, however they arrive."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from shoal.statistics import BUFFER_ROWS, Accumulator

NAMES = ["a", "b", "c"]
EDGES = [[-10.0, -1.0, 0.0, 2.5, 100.0], [], [0.0, 1e-3]]
RANGES = [(-50.0, 50.0), (None, 10.0), (None, None)]

readings = st.one_of(
    st.floats(-1e6, 1e6, width=32),
    st.sampled_from([0.0, -1.0, 2.5, 50.0, 10.0, math.nan, math.inf, -math.inf]),
)
tables = arrays(np.float32, st.tuples(st.integers(0, 40), st.just(3)), elements=readings)
splits = st.lists(st.integers(0, 40), max_size=6)


def _accumulator():
    return Accumulator(NAMES, EDGES, RANGES)


def _count_one_by_one(values, edges):
    bins = [0] * (len(edges) + 1)
    for value in values:
        bins[sum(edge <= value for edge in edges)] += 1
    return bins


def _assert_agrees(found, column, index):
    finite = column[np.isfinite(column)].astype(np.float64)
    low, high = RANGES[index]
    outside = [
        v for v in finite if (low is not None and v < low) or (high is not None and v > high)
    ]
    assert found.name == NAMES[index]
    assert found.count == len(finite)
    assert found.missing == np.isnan(column).sum()
    assert found.nonfinite == np.isinf(column).sum()
    assert found.out_of_range == len(outside)
    assert found.bins == (_count_one_by_one(finite, EDGES[index]) if EDGES[index] else [])
    if not len(finite):
        assert (found.mean, found.m2, found.min, found.max) == (0.0, 0.0, None, None)
        return
    largest = np.abs(finite).max()
    assert found.mean == pytest.approx(finite.mean(), rel=1e-6, abs=1e-9 * largest)
    squares = ((finite - finite.mean()) ** 2).sum()
    assert found.m2 == pytest.approx(squares, rel=1e-6, abs=1e-9 * largest**2)
    assert found.min == pytest.approx(finite.min(), rel=1e-6)
    assert found.max == pytest.approx(finite.max(), rel=1e-6)


@given(tables, splits)
def test_agrees_with_numpy_on_all_rows_however_they_are_split(rows, splits):
    accumulator = _accumulator()
    for part in np.split(rows, sorted(min(at, len(rows)) for at in splits)):
        accumulator.update(part)
    for index, found in enumerate(accumulator.take()):
        _assert_agrees(found, rows[:, index], index)


@pytest.mark.parametrize(
    "size", [1, BUFFER_ROWS - 1, BUFFER_ROWS, BUFFER_ROWS + 1, 3 * BUFFER_ROWS + 7]
)
def test_agrees_with_numpy_across_the_buffer_boundary(size):
    rows = np.random.default_rng(size).normal(5, 40, (2 * size, 3)).astype(np.float32)
    rows[:: max(size // 3, 1), 0] = np.nan
    accumulator = _accumulator()
    accumulator.update(rows[:size])
    accumulator.update(rows[size:])
    for index, found in enumerate(accumulator.take()):
        _assert_agrees(found, rows[:, index], index)


def test_moments_of_a_small_spread_around_a_large_mean_do_not_cancel():
    rows = (1e6 + np.random.default_rng(3).normal(0, 1, (5000, 3))).astype(np.float32)
    accumulator = _accumulator()
    for start in range(0, 5000, 97):
        accumulator.update(rows[start : start + 97])
    found = accumulator.take()[0]
    assert found.m2 / (found.count - 1) == pytest.approx(
        rows[:, 0].astype(np.float64).var(ddof=1), rel=1e-6
    )


def test_missing_infinite_and_out_of_range_are_told_apart():
    accumulator = Accumulator(["t"], [[0.0]], [(-5.0, 5.0)])
    values = [math.nan, math.inf, -math.inf, -6.0, -5.0, 0.0, 5.0, 6.0]
    accumulator.update(np.array(values, np.float32)[:, None])
    (found,) = accumulator.take()
    assert (found.count, found.missing, found.nonfinite, found.out_of_range) == (5, 1, 2, 2)
    assert (found.min, found.max, found.bins) == (-6.0, 6.0, [2, 3])


def test_take_starts_again_from_nothing():
    accumulator = _accumulator()
    accumulator.update(np.ones((BUFFER_ROWS + 3, 3), np.float32))
    assert [one.count for one in accumulator.take()] == [BUFFER_ROWS + 3] * 3
    for one in accumulator.take():
        assert (one.count, one.missing, one.min, one.max, one.mean) == (0, 0, None, None, 0.0)
        assert sum(one.bins) == 0
    accumulator.update(np.full((2, 3), 7, np.float32))
    assert [(one.count, one.mean, one.min) for one in accumulator.take()] == [(2, 7.0, 7.0)] * 3


def test_the_callers_rows_are_left_alone():
    rows = np.ones((4, 3), np.float32)
    accumulator = _accumulator()
    accumulator.update(rows)
    rows[:] = 99
    assert accumulator.take()[0].max == 1.0


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=readings))
def test_every_row_of_every_field_is_settled_once(rows):
    width = rows.shape[1]
    accumulator = Accumulator(
        [f"f{i}" for i in range(width)], [[0.0, 1.0]] * width, [(None, None)] * width
    )
    accumulator.update(rows)
    for one in accumulator.take():
        assert one.count + one.missing + one.nonfinite == len(rows)
        assert sum(one.bins) == one.count
