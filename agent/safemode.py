"""Safe mode: an agent that keeps crashing starts without models, connected and updatable.

Starts are counted in the state store, before anything else is done. The count is cleared by some
healthy minutes and by an orderly stop, so neither a restart by hand nor an upgrade counts. Safe
mode is left for a newer desired state, and by itself after a while, to try again.
"""

from __future__ import annotations

import asyncio
import contextlib

from agent.crashloop import (
    HEALTHY_SECONDS,
    MAX_STARTS,
    SAFE_SECONDS,
    Starts,
    begin_start,
    is_safe_mode,
)
from agent.store import StateStore, StateStoreError

KEY = "starts"


class SafeMode:
    """Made once per start of the agent."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        starts = begin_start(store.note(KEY, Starts) or Starts())
        self._save(starts)
        self._left = asyncio.Event()
        self.reason = ""
        """Why nothing runs; "" outside safe mode."""
        if is_safe_mode(starts):
            self.reason = (
                f"safe mode: the agent has started {starts.count} times without "
                f"{HEALTHY_SECONDS / 60:.0f} healthy minutes (at most {MAX_STARTS - 1}); models "
                f"start with a newer desired state, or after {SAFE_SECONDS / 60:.0f} minutes"
            )

    def leave(self) -> None:
        """Something newer is to be run."""
        self._left.set()

    async def over(self, seconds: float = SAFE_SECONDS) -> None:
        """Wait until models may run; at once outside safe mode."""
        if self.reason:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._left.wait()
            self.reason = ""

    async def watch(self, seconds: float = HEALTHY_SECONDS) -> None:
        """Clear the count once models have run for some minutes."""
        await asyncio.sleep(seconds)
        self.clear()

    def clear(self) -> None:
        """This run is healthy, or ends in order."""
        self._save(Starts())

    def _save(self, starts: Starts) -> None:
        with contextlib.suppress(StateStoreError):  # a disk that takes nothing is told elsewhere
            self._store.save_note(KEY, starts)
