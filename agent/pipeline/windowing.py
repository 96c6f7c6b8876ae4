"""Which rows belong to which window, and what to carry over to the next batch.

Pure arithmetic on row counts: the worker sees carried rows first, then the fresh usable ones, and
answers every window that fits; what later windows still need is carried.
"""

from __future__ import annotations


def count_windows(rows: int, window: int, stride: int) -> int:
    """Windows that fit into `rows` rows."""
    return max(0, (rows - window) // stride + 1)


def carry_from(rows: int, window: int, stride: int) -> int:
    """Index of the first row to carry: where the next window starts."""
    return count_windows(rows, window, stride) * stride


def last_rows(windows: int, window: int, stride: int) -> list[int]:
    """Index of the last row of each window, among carried and fresh rows."""
    return [number * stride + window - 1 for number in range(windows)]
