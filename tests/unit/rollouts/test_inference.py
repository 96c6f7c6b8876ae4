"""Canary against control: what counts as more than chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.rollouts.inference import can_tell, compare, detectable, look_level

LEVEL = look_level(3)


def _draw(seed, canary, control, shift=0.0, spread=1.0):
    random = np.random.default_rng(seed)
    return (
        (random.standard_normal(canary) * spread + shift).tolist(),
        random.standard_normal(control).tolist(),
    )


@pytest.mark.parametrize(("canary", "control"), [(5, 30), (8, 40), (50, 150)])
def test_a_clear_difference_is_harmful_and_none_is_not(canary, control):
    worse, same = _draw(1, canary, control, 4.0)
    found = compare(worse, same, margin=0.1, level=LEVEL)
    assert found is not None
    assert found.harmful
    assert found.low < 4 < found.high + 1
    calm = compare(*_draw(2, canary, control), margin=0.1, level=LEVEL)
    assert calm is not None
    assert not calm.harmful


def test_what_lies_within_the_margin_is_harmless_however_sure_it_is():
    canary = [0.05 + 0.001 * i for i in range(40)]
    control = [0.001 * i for i in range(40)]
    found = compare(canary, control, margin=0.1, level=LEVEL)
    assert found is not None
    assert not found.harmful
    assert found.low > 0


def test_too_few_devices_say_that_they_cannot_tell():
    assert compare([100.0, 100.0], [0.0] * 6, margin=0, level=LEVEL) is None
    assert not can_tell(2, 6, LEVEL)
    assert not can_tell(1, 10_000, LEVEL)
    assert can_tell(5, 9, LEVEL)


def test_better_than_the_control_is_harm_only_where_both_sides_are():
    better, same = _draw(3, 30, 60, -3.0)
    above = compare(better, same, margin=0.1, level=LEVEL)
    both = compare(better, same, margin=0.1, level=LEVEL, side="both")
    assert above is not None
    assert both is not None
    assert (above.harmful, both.harmful) == (False, True)


def test_numbers_that_are_none_are_left_out():
    found = compare([math.nan, 5.0] * 20, [math.inf, 0.0] * 30, margin=0, level=LEVEL)
    assert found is not None
    assert (found.canary, found.control) == (20, 30)


def test_changes_too_small_to_square_are_compared_all_the_same():
    tiny = [i * 1e-170 for i in range(30)]
    found = compare([value + 1 for value in tiny], tiny, margin=0.1, level=LEVEL)
    assert found is not None
    assert found.harmful


def test_devices_that_do_not_vary_at_all_are_judged_by_arrangement():
    found = compare([1.0] * 5, [0.0] * 12, margin=0.1, level=LEVEL)
    assert found is not None
    assert found.harmful
    assert found.p == pytest.approx(1 / math.comb(17, 5))


@pytest.mark.parametrize(("canary", "control", "spread"), [(4, 14, 1.0), (6, 30, 2.0), (25, 25, 3)])
def test_harmless_releases_are_stopped_no_more_often_than_stated(canary, control, spread):
    level = 0.05  # large enough to count in few draws
    stops = sum(
        found.harmful
        for seed in range(300)
        if (found := compare(*_draw(seed, canary, control, 0, spread), margin=0, level=level))
    )
    assert stops <= 300 * level + 4 * math.sqrt(300 * level * (1 - level))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=8),
    st.lists(st.floats(-1e6, 1e6), min_size=9, max_size=12),
    st.integers(0, 2**32),
)
def test_the_same_numbers_give_the_same_verdict_in_any_order(canary, control, seed):
    first = compare(canary, control, margin=0.1, level=LEVEL, seed=seed)
    again = compare(canary[::-1], control[::-1], margin=0.1, level=LEVEL, seed=seed)
    assert first is not None
    assert again is not None
    assert 0 < first.p <= 1
    assert first.p == pytest.approx(again.p, rel=1e-6)


def test_more_devices_find_smaller_harm_and_too_few_find_none():
    few, many = detectable(5, 20, 1.0, LEVEL), detectable(50, 200, 1.0, LEVEL)
    assert few is not None
    assert many is not None
    assert many < few / 2
    assert detectable(2, 5, 1.0, LEVEL) is None


def test_a_harm_of_the_size_called_detectable_is_found_that_often():
    least = detectable(30, 60, 1.0, LEVEL, power=0.95)
    assert least is not None
    found = [compare(*_draw(seed, 30, 60, least), margin=0, level=LEVEL) for seed in range(200)]
    assert sum(one.harmful for one in found if one is not None) >= 200 * 0.9
