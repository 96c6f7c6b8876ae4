"""Which sequence numbers of a boot are committed: inclusive, ascending, coalesced ranges.

A hole stays open until its row arrives. Beyond `MAX_RANGES` the oldest hole is closed as lost, so
the list, and the `acked` message made of it, stay small.

>>> ranges = [(1, 3)]
>>> add(ranges, 5), add(ranges, 4), add(ranges, 2), ranges
(True, True, False, [(1, 5)])
"""

from __future__ import annotations

from bisect import bisect_right

MAX_RANGES = 256

Ranges = list[tuple[int, int]]


def add(ranges: Ranges, number: int) -> bool:
    """Add a number in place; return whether it was new."""
    at = bisect_right(ranges, (number, 2**62))
    if at and number <= ranges[at - 1][1]:
        return False
    joins_left = at > 0 and ranges[at - 1][1] == number - 1
    joins_right = at < len(ranges) and ranges[at][0] == number + 1
    low = ranges[at - 1][0] if joins_left else number
    high = ranges[at][1] if joins_right else number
    ranges[at - joins_left : at + joins_right] = [(low, high)]
    if len(ranges) > MAX_RANGES:
        ranges[:2] = [(ranges[0][0], ranges[1][1])]
    return True


def contains(ranges: Ranges, number: int) -> bool:
    """Whether a number is in."""
    at = bisect_right(ranges, (number, 2**62))
    return at > 0 and number <= ranges[at - 1][1]
