"""Closing the reporting windows, and feeding systemd's watchdog as long as they do close."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from agent.capture import Recorder
from agent.live_options import LiveOptions
from agent.manager import ModelManager
from agent.notify import notify, watchdog_seconds
from agent.pipeline import WorkerPipeline

log = logging.getLogger("agent.windows")

PROBATION_REPORT_SECONDS = 5.0
"""A window's length at most while a candidate is in probation."""
STUCK_SECONDS = 120.0
"""A window that closes later than this is stuck: the watchdog is told no more."""


class Windows:
    """The windows of every model, closed together."""

    def __init__(
        self,
        options: LiveOptions,
        managers: Mapping[str, ModelManager],
        pipelines: Mapping[str, WorkerPipeline],
        recorders: Mapping[str, Recorder],
    ) -> None:
        self._options = options
        self._managers = managers
        self._pipelines = pipelines
        self._recorders = recorders
        self._closed = time.monotonic()

    async def run(self) -> None:
        """Close them whenever their time is up, for ever."""
        while True:
            trial = any(manager.in_probation for manager in self._managers.values())
            period = self._options.window_seconds
            await self._options.wait(min(period, PROBATION_REPORT_SECONDS) if trial else period)
            await self.close()

    async def close(self) -> None:
        """Close them now."""
        for name, manager in self._managers.items():
            reports = await self._pipelines[name].take_reports()
            for report in reports:
                self._recorders[name].note(report)
            await manager.observe(reports)
        self._closed = time.monotonic()

    async def feed_watchdog(self) -> None:
        """Tell systemd that all is well; ends at once where nobody asks."""
        period = watchdog_seconds()
        while period:
            await asyncio.sleep(period)
            late = time.monotonic() - self._closed
            if late < self._options.window_seconds + STUCK_SECONDS:
                notify("WATCHDOG=1")
            else:  # systemd starts us again, with a fresh forkserver
                log.error("windows stuck seconds=%.0f", late)
