"""Counting rows so that nothing goes missing: in = ok + Σ dropped + Σ failed.

Every row is settled exactly once, with one of the reasons named here. Pure; the pipeline feeds
it, the tests check the sum under any interleaving.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from shoal.protocol.messages import LATENCY_EDGES_US

NO_MODEL = "no-model"
"""Dropped: no release is loaded."""
MISSING = "missing"
"""Dropped: a feature without a fill rule has no value."""
OVERLOAD = "overload"
"""Dropped: the model is slower than the source, and the buffer was full."""
STALE = "stale"
"""Dropped: older than the device's limit when its turn came."""
FUTURE = "future"
"""Dropped: further ahead of the clock than the device's limit."""
OUT_OF_ORDER = "out-of-order"
"""Dropped: older than a row that a window or a resampled row holds already."""
RESAMPLED = "resampled"
"""Dropped: merged with others into one row of the contract's rate."""
STOPPED = "stopped"
"""Dropped: it waited when the agent stopped or the source failed."""
WRONG_WIDTH = "wrong-width"
"""Dropped: the source gives other columns than the release takes."""
NON_FINITE_OUTPUT = "non-finite-output"
"""Failed: the model answered NaN or infinity."""


@dataclass(slots=True)
class Account:
    """Counts of one window."""

    in_count: int = 0
    ok: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    out_of_range: int = 0
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_EDGES_US) + 1))
    latency_max_us: float = 0.0

    def drop(self, reason: str, rows: int) -> None:
        """Settle rows that did not reach the model."""
        if rows:
            self.in_count += rows
            self.dropped[reason] += rows

    def fail(self, code: str, rows: int) -> None:
        """Settle rows that got no usable answer."""
        if rows:
            self.in_count += rows
            self.failed[code] += rows

    def succeed(self, rows: int, latency_us: float) -> None:
        """Settle answered rows; each took `latency_us` from leaving the source to its answer."""
        if rows:
            self.in_count += rows
            self.ok += rows
            self.latency_counts[bisect_left(LATENCY_EDGES_US, latency_us)] += rows
            self.latency_max_us = max(self.latency_max_us, latency_us)

    @property
    def balanced(self) -> bool:
        """Whether every row is settled once; always true."""
        return self.in_count == self.ok + self.dropped.total() + self.failed.total()
