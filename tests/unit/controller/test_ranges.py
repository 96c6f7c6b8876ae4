"""Ranges of committed sequence numbers against a plain set."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controller.ingest.ranges import MAX_RANGES, Ranges, add, contains

NUMBERS = st.lists(st.integers(1, 60), max_size=120)


@given(NUMBERS)
def test_says_new_exactly_once_of_each_number_in_any_order(numbers):
    ranges: Ranges = []
    seen: set[int] = set()
    for number in numbers:
        assert add(ranges, number) is (number not in seen)
        seen.add(number)
        assert all(contains(ranges, one) is (one in seen) for one in range(62))


@given(NUMBERS)
def test_stays_ascending_and_coalesced(numbers):
    ranges: Ranges = []
    for number in numbers:
        add(ranges, number)
    for (_, high), (low, _) in pairwise(ranges):
        assert low > high + 1
    assert all(low <= high for low, high in ranges)


def test_closes_the_oldest_hole_when_there_are_too_many():
    ranges: Ranges = []
    for number in range(MAX_RANGES + 5):
        add(ranges, 2 * number + 1)
    assert len(ranges) == MAX_RANGES
    assert ranges[0] == (1, 11)
    assert not add(ranges, 2)
    assert add(ranges, 2 * MAX_RANGES)


def test_a_number_far_away_costs_one_range():
    ranges: Ranges = [(1, 5)]
    assert add(ranges, 2**53)
    assert ranges == [(1, 5), (2**53, 2**53)]
