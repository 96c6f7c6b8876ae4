"""Reading latency histograms, which add over windows and devices.

>>> latency_quantile([0, 9, 1], 0.95)
20.0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from shoal.protocol.messages import LATENCY_EDGES_US

LATENCY_FLOOR_US = 2000.0
"""A p95 below 2 ms is never too slow, whatever it was before: at that scale the scheduler decides.
"""


def latency_quantile(counts: Sequence[int], quantile: float) -> float:
    """Read a quantile in µs: the upper edge of its bin; 0 if empty."""
    total = sum(counts)
    if not total:
        return 0.0
    rank, seen = quantile * total, 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= rank and count:
            return LATENCY_EDGES_US[min(index, len(LATENCY_EDGES_US) - 1)]
    return LATENCY_EDGES_US[-1]


def add_histograms(parts: Iterable[Sequence[int]]) -> list[int]:
    """Sum histograms whose trailing zeros may be left out."""
    return [sum(column) for column in zip_longest(*parts, fillvalue=0)]
