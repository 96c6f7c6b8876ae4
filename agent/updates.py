"""The resident side of updates: asks the updater, and bounds how often newer metadata are sought.

It holds no key and verifies nothing. An envelope that nobody we know has signed makes the updater
ask for newer metadata, since the director's key may have been rotated; whoever reaches the broker
could make a device ask for ever, so such asking has a budget.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

from agent.blocks import Blocks
from agent.floors import raise_release
from agent.refusals import Refusals
from agent.update_settings import UpdateSettings
from agent.updater.client import OnProgress, UpdaterError, ask_updater, ignore
from agent.updater.wire import (
    FetchRequest,
    Refreshed,
    RefreshRequest,
    Staged,
    Verified,
    VerifyCommandRequest,
    VerifyRequest,
)
from shoal.ids import DeviceId
from shoal.protocol.desired import Assignment

log = logging.getLogger("agent.updates")

BURST, REFILL_SECONDS = 3, 300.0


class Budget:
    """`BURST` at once, then one in `REFILL_SECONDS`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._seen = clock()

    def has_some(self) -> bool:
        """Whether one more is allowed now."""
        now = self._clock()
        self._left = min(self._left + (now - self._seen) / REFILL_SECONDS, BURST)
        self._seen = now
        return self._left >= 1.0

    def take(self) -> None:
        """One was used."""
        self._left = max(self._left - 1.0, 0.0)


class Updates:
    """Asks one updater process for each thing."""

    def __init__(
        self,
        state_dir: Path,
        device: DeviceId,
        settings: UpdateSettings,
        blocks: Blocks | None = None,
    ) -> None:
        self._blocks = blocks
        self._state_dir = state_dir
        self._device = device
        self._sources = settings.sources
        self._refresh_seconds = settings.refresh_seconds
        self._budget = Budget()
        self._raising: set[asyncio.Task[None]] = set()

    async def verify_desired(self, envelope: bytes, floor: int) -> bytes:
        """The payload that the director has signed for this device, or `UpdaterError`."""
        may = self._budget.has_some()
        request = VerifyRequest(
            str(self._state_dir), self._device, floor, envelope, self._sources, may
        )
        return await self._verified(request)

    async def verify_command(self, envelope: bytes) -> bytes:
        """The payload of a command that the director has signed for this device."""
        may = self._budget.has_some()
        request = VerifyCommandRequest(
            str(self._state_dir), self._device, envelope, self._sources, may
        )
        return await self._verified(request)

    async def fetch(
        self,
        assignment: Assignment,
        facts: dict[str, str | int | float | bool],
        on_progress: OnProgress = ignore,
    ) -> Staged:
        """Bring a release onto the disk."""
        request = FetchRequest(str(self._state_dir), assignment, facts, self._sources)
        reply = await ask_updater(request, on_progress, self._blocks)
        assert isinstance(reply, Staged)
        return reply

    async def refresh(self) -> Refreshed:
        """Ask for newer metadata."""
        request = RefreshRequest(str(self._state_dir), self._sources)
        reply = await ask_updater(request, blocks=self._blocks)
        assert isinstance(reply, Refreshed)
        return reply

    def raise_floor(self, model: str, sequence: int) -> None:
        """A release is committed: none older than `sequence` is fetched from now on.

        In the background, since another updater may hold the floors; it is repeated at the next
        start."""
        task = asyncio.create_task(self._raise_floor(model, sequence), name=f"floor-{model}")
        self._raising.add(task)
        task.add_done_callback(self._raising.discard)

    async def _raise_floor(self, model: str, sequence: int) -> None:
        try:
            await asyncio.to_thread(raise_release, self._state_dir, model, sequence)
        except OSError as error:
            log.error("floor not raised model=%s error=%r", model, str(error))

    async def run(self, refusals: Refusals) -> None:
        """Refresh now and then, for ever, so that freshness and signed time go on."""
        while True:
            await asyncio.sleep(self._refresh_seconds * random.uniform(0.7, 1.0))  # noqa: S311
            try:
                told = await self.refresh()
            except UpdaterError as error:
                refusals.tell(error.code, error.sentence)
            else:
                log.info("metadata fresh versions=%s", told.versions)

    async def _verified(self, request: VerifyRequest | VerifyCommandRequest) -> bytes:
        try:
            reply = await ask_updater(request, blocks=self._blocks)
        except UpdaterError:
            if request.may_refresh:  # only what is refused can be an attacker's
                self._budget.take()
            raise
        assert isinstance(reply, Verified)
        return reply.payload
