"""Merging statistics is counting at once, and PSI is free of its own noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shoal.drift import FLOOR, merge, psi
from shoal.protocol.messages import FieldStatistics
from shoal.statistics import Accumulator

EDGES = [-100.0, 0.0, 0.5, 100.0]

readings = st.floats(-1e4, 1e4, width=32) | st.sampled_from([math.nan, math.inf])
columns = arrays(np.float32, st.integers(0, 30), elements=readings)


def _count(values: np.ndarray) -> FieldStatistics:
    accumulator = Accumulator(["x"], [EDGES], [(-50.0, 50.0)])
    accumulator.update(values[:, None])
    return accumulator.take()[0]


def _assert_same(a: FieldStatistics | None, b: FieldStatistics | None, scale: float) -> None:
    assert a is not None
    assert b is not None
    assert (a.count, a.missing, a.nonfinite) == (b.count, b.missing, b.nonfinite)
    assert (a.out_of_range, a.min, a.max, a.bins) == (b.out_of_range, b.min, b.max, b.bins)
    assert a.mean == pytest.approx(b.mean, rel=1e-5, abs=1e-6 * scale)
    assert a.m2 == pytest.approx(b.m2, rel=1e-5, abs=1e-5 * scale**2)


def _scale(*parts: np.ndarray) -> float:
    values = np.concatenate(parts)
    return max(float(np.abs(values[np.isfinite(values)]).max(initial=0.0)), 1e-6)


@given(st.lists(columns, min_size=1, max_size=5))
def test_merged_windows_equal_all_rows_counted_at_once(parts):
    merged = merge(_count(part) for part in parts)
    _assert_same(merged, _count(np.concatenate(parts)), _scale(*parts))


@given(columns, columns, columns)
def test_merging_is_associative(a, b, c):
    one, two, three = _count(a), _count(b), _count(c)
    left = merge([merge([one, two]), three])
    right = merge([one, merge([two, three])])
    _assert_same(left, right, _scale(a, b, c))


@given(columns, columns)
def test_merging_is_commutative(a, b):
    one, two = _count(a), _count(b)
    _assert_same(merge([one, two]), merge([two, one]), _scale(a, b))


def test_nothing_merged_is_nothing():
    assert merge([]) is None


def test_an_empty_window_changes_nothing():
    one = _count(np.array([1, 2, 4], np.float32))
    empty = _count(np.empty(0, np.float32))
    assert merge([one, empty]) == merge([empty, one]) == one


def test_merging_leaves_its_parts_alone():
    one, two = _count(np.ones(3, np.float32)), _count(np.zeros(2, np.float32))
    before = (list(one.bins), one.count, list(two.bins))
    merge([one, two])
    assert (one.bins, one.count, two.bins) == before


def test_windows_counted_in_different_bins_lose_them_and_keep_their_moments():
    a = FieldStatistics(name="x", count=2, mean=1.0, m2=2.0, min=0.0, max=2.0, bins=[1, 1])
    b = FieldStatistics(name="x", count=2, mean=3.0, m2=2.0, min=2.0, max=4.0, bins=[1, 0, 1])
    whole = merge([a, b])
    assert whole == FieldStatistics(name="x", count=4, mean=2.0, m2=8.0, min=0.0, max=4.0, bins=[])


def test_psi_of_a_shift_is_the_sum_over_bins_less_the_noise():
    expected, observed = [500, 500], [800, 200]
    raw = 0.3 * math.log(0.8 / 0.5) + (0.2 - 0.5) * math.log(0.2 / 0.5)
    assert psi(expected, observed) == pytest.approx(raw - 2 / 1000)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=12).filter(any))
def test_psi_of_a_histogram_with_itself_is_zero(counts):
    assert psi(counts, counts) == 0.0
    assert psi(counts, [count * 3 for count in counts]) == 0.0


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            *[st.lists(st.integers(0, 1000), min_size=n, max_size=n).filter(any)] * 2
        )
    )
)
def test_psi_is_symmetric_finite_and_never_negative(pair):
    a, b = pair
    found = psi(a, b)
    assert found is not None
    assert math.isfinite(found)
    assert found >= 0
    assert found == pytest.approx(psi(b, a))


def test_an_empty_bin_counts_as_the_floor():
    found = psi([5000, 5000], [10000, 0])
    raw = 0.5 * math.log(2) + (FLOOR - 0.5) * math.log(FLOOR / 0.5)
    assert found == pytest.approx(raw - 2 / 10000)


def test_bins_that_nobody_filled_add_no_noise_correction():
    assert psi([500, 500, 0, 0], [800, 200, 0, 0]) == psi([500, 500], [800, 200])


@pytest.mark.parametrize("rows", [200, 1000, 5000])
def test_the_noise_of_small_samples_is_taken_off(rows):
    """Uncorrected PSI of unchanged data is (bins - 1)/n on average; corrected it is close to 0."""
    random = np.random.default_rng(rows)
    share = np.full(10, 0.1)
    training = (share * 1_000_000).astype(int).tolist()
    windows = random.multinomial(rows, share, 500)
    found = [psi(training, window.tolist()) for window in windows]
    noise = 9 / rows
    assert np.mean([value or 0.0 for value in found]) < 0.5 * noise
    assert np.quantile([value or 0.0 for value in found], 0.95) < 1.5 * noise


@pytest.mark.parametrize(
    ("expected", "observed"),
    [([], []), ([0, 0], [1, 2]), ([1, 2], [0, 0]), ([1, 2], [1, 2, 3]), ([1], [])],
)
def test_psi_of_what_cannot_be_compared_is_none(expected, observed):
    assert psi(expected, observed) is None
