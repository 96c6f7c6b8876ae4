"""The `health` message: what the processes take, and how late the event loop comes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from agent.live_options import LiveOptions
from agent.ports import WorkerPool
from agent.reporter import Reporter

LAG_PERIOD_SECONDS = 0.1
LAGS = 600
"""Measurements kept: those of the last minute."""


def p99(values: Sequence[float]) -> float:
    """What 99 of 100 values do not exceed; 0 of none. Pure.

    >>> p99([]), p99([3.0, 1.0]), p99(range(200))
    (0.0, 3.0, 198)
    """
    ordered = sorted(values) or [0.0]
    return ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]


class HealthReport:
    """Measures and reports."""

    def __init__(
        self,
        reporter: Reporter,
        pool: WorkerPool,
        options: LiveOptions,
        connects: Callable[[], int],
    ) -> None:
        self._reporter = reporter
        self._pool = pool
        self._options = options
        self._connects = connects
        self._lags: deque[float] = deque(maxlen=LAGS)

    async def run(self) -> None:
        """Report for ever."""
        while True:
            await self._options.wait(self._options.health_seconds)
            self._reporter.health(self._pool.pids(), p99(self._lags) * 1e3, self._connects())

    async def measure_lag(self) -> None:
        """Sleep for a known time, and note how much longer it took."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_PERIOD_SECONDS)
            self._lags.append(max(time.monotonic() - before - LAG_PERIOD_SECONDS, 0.0))
