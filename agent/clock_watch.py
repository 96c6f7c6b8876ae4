"""Watching the clock: whether it is synchronised, when it jumps, and how far it has come."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from agent.clock import Clock, find_probe
from agent.reporter import Reporter
from agent.store import StateStore, StateStoreError

log = logging.getLogger("agent.clock")

CLOCK_SECONDS = 60.0


async def watch_clock(clock: Clock, store: StateStore, reporter: Reporter) -> None:
    """Ask whether the clock is synchronised, tell of jumps, store how far it has come."""
    probe = await asyncio.to_thread(find_probe)
    while True:
        clock.synced = await asyncio.to_thread(probe)
        if jump := clock.take_jump_ms():
            sentence = f"the wall clock was set by {jump / 1000:+.1f} s"
            log.warning("clock jumped seconds=%.1f", jump / 1000)
            reporter.event("agent", "clock-jump", sentence, data={"seconds": jump / 1000})
        with contextlib.suppress(StateStoreError):  # a full disk; the next minute again
            store.save_clock(clock.known())
        await asyncio.sleep(CLOCK_SECONDS)
