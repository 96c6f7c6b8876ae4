"""Three times: what messages carry, what ages are measured in, and what jumps do to neither."""

from __future__ import annotations

import doctest
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent.clock
from agent.clock import SLACK_MS, Clock, Known, find_probe


@dataclass
class Hands:
    """A clock's two hands, moved by the test."""

    wall_ms: int = 1_800_000_000_000
    seconds: float = 100.0

    def pass_ms(self, milliseconds: int) -> None:
        """Let time pass."""
        self.wall_ms += milliseconds
        self.seconds += milliseconds / 1000

    def clock(self, known: Known | None = None) -> Clock:
        """A clock that reads these hands."""
        return Clock(known, wall=lambda: self.wall_ms, monotonic=lambda: self.seconds)


def test_a_device_without_a_clock_chip_goes_on_from_the_last_known_time():
    hands = Hands(wall_ms=0)
    clock = hands.clock(Known(steady_ms=7_000, wall_ms=1_700_000_000_000))
    assert clock.now_ms() == 1_700_000_000_000
    hands.pass_ms(60_000)
    assert (clock.now_ms(), clock.steady_ms()) == (1_700_000_060_000, 67_000)


def test_a_synchronised_clock_is_believed_even_below_what_was_known():
    hands = Hands(wall_ms=1_800_000_000_000)
    clock = hands.clock(Known(steady_ms=0, wall_ms=4_000_000_000_000))
    assert clock.now_ms() == 4_000_000_000_000
    clock.synced = True
    assert clock.now_ms() == 1_800_000_000_000
    assert clock.known().wall_ms == 1_800_000_000_000


def test_a_moment_before_the_first_answer_of_ntp_gets_its_right_time_afterwards():
    hands = Hands(wall_ms=0)
    clock = hands.clock()
    start = clock.steady_ms()
    hands.pass_ms(5_000)
    hands.wall_ms = 1_800_000_000_000
    clock.synced = True
    assert clock.to_wall_ms(start) == 1_800_000_000_000 - 5_000


def test_the_end_of_a_window_is_the_start_of_the_next():
    """Two clocks that are read one after the other differ by a millisecond now and then."""
    hands = Hands(seconds=100.0004)
    clock = hands.clock()
    clock.synced = True
    edge = clock.steady_ms()
    told = set()
    for _ in range(50):
        hands.seconds += 0.0103
        hands.wall_ms += 10
        told.add(clock.to_wall_ms(edge))
    assert len(told) == 1


@pytest.mark.parametrize("jump", [-30 * 86_400_000, -5_000, 5_000, 30 * 86_400_000])
def test_a_jump_is_told_once(jump):
    hands = Hands()
    clock = hands.clock()
    hands.pass_ms(10_000)
    assert clock.take_jump_ms() == 0
    hands.wall_ms += jump
    hands.pass_ms(10_000)
    assert clock.take_jump_ms() == jump
    assert clock.take_jump_ms() == 0


moves = st.lists(st.tuples(st.integers(0, 100_000), st.integers(-(10**13), 10**13)), max_size=20)


@given(moves, st.booleans())
def test_steady_time_and_lengths_know_nothing_of_jumps(moves, synced):
    hands = Hands()
    clock = hands.clock()
    clock.synced = synced
    first, passed = clock.steady_ms(), 0
    for milliseconds, jump in moves:
        before = clock.steady_ms()
        hands.pass_ms(milliseconds)
        hands.wall_ms += jump
        passed += milliseconds
        assert abs(clock.steady_ms() - before - milliseconds) <= 1
        start, end = clock.to_wall_ms(before), clock.to_wall_ms(clock.steady_ms())
        assert start <= end
        assert not start or abs(end - start - milliseconds) <= 2 * SLACK_MS
    assert abs(clock.steady_ms() - first - passed) <= 1
    again = hands.clock(clock.known())
    assert again.steady_ms() == clock.steady_ms()
    if not synced:
        assert again.now_ms() >= clock.known().wall_ms


def test_some_way_of_asking_for_synchronisation_works_here():
    assert find_probe()() in (True, False)


def test_the_example_is_right():
    assert doctest.testmod(agent.clock).failed == 0


def test_a_clock_that_shows_less_than_has_been_is_behind_until_it_is_synchronised():
    hands = Hands(wall_ms=0)
    clock = hands.clock(Known(steady_ms=0, wall_ms=1_700_000_000_000))
    assert clock.behind
    hands.wall_ms = 1_700_000_000_001
    assert not clock.behind
    hands.wall_ms = 1_600_000_000_000
    clock.synced = True
    assert not clock.behind
