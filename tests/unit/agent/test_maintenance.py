"""Maintenance windows: when they are open, and what is no window."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal.maintenance
from shoal.errors import InvalidInputError
from shoal.maintenance import DAYS, parse_window, seconds_until_open

hours = st.integers(0, 23)
minutes = st.integers(0, 59)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(  # noqa: DTZ001
    lambda one: one.replace(tzinfo=UTC)
)
texts = st.builds(
    lambda days, a, b, c, d: f"{','.join(days)} {a:02}:{b:02}-{c:02}:{d:02}",
    st.lists(st.sampled_from(DAYS), min_size=1, unique=True),
    hours,
    minutes,
    hours,
    minutes,
)


def test_without_windows_it_is_always_open():
    assert seconds_until_open([], datetime(2026, 1, 1, tzinfo=UTC)) == 0.0


@given(texts, moments)
def test_after_the_wait_it_is_open_and_before_it_was_not(text, now):
    window = parse_window(text)
    wait = seconds_until_open([window], now)
    assert 0 <= wait <= 8 * 86_400
    assert seconds_until_open([window], now + timedelta(seconds=wait)) == 0.0
    if wait > 1:
        assert seconds_until_open([window], now + timedelta(seconds=wait / 2)) > 0


@pytest.mark.parametrize("text", ["", "2:00-4:00", "02:00", "25:00-26:00", "xyz 02:00-04:00"])
def test_what_is_no_window_is_refused_in_words(text):
    with pytest.raises(InvalidInputError):
        parse_window(text)


def test_the_examples_are_right():
    assert doctest.testmod(shoal.maintenance).failed == 0
