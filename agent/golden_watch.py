"""Running the golden samples of what answers again, and taking the release before if they fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from agent.golden import GoldenLog
from agent.loading import ReleaseLoader
from agent.slot_record import SlotRecord
from agent.slot_workers import SlotWorkers
from agent.workers.pool import Worker
from shoal.errors import ShoalError

LOOK_SECONDS = 60.0


class GoldenWatch:
    """Watches one model."""

    def __init__(
        self,
        golden: GoldenLog,
        record: SlotRecord,
        workers: SlotWorkers,
        loader: ReleaseLoader,
        changing: asyncio.Lock,
        now_ms: Callable[[], int],
    ) -> None:
        self._golden = golden
        self._record = record
        self._workers = workers
        self._loader = loader
        self._changing = changing
        self._now_ms = now_ms

    async def run(self) -> None:
        """Look whether they are due, for ever."""
        while True:
            async with self._changing:
                worker = self._workers.running
                if worker is not None and not self._record.in_probation:
                    with contextlib.suppress(ShoalError):  # lost: the next request replaces it
                        await self._check(worker)
            await asyncio.sleep(LOOK_SECONDS)

    async def _check(self, worker: Worker) -> None:
        """On a mismatch let the release before answer, if that one is right; the lock is held."""
        release, now_ms = worker.release, self._now_ms()
        if not self._golden.is_due(release, worker.facts, now_ms):
            return
        report = await worker.golden()
        self._golden.note(release, worker.facts, now_ms)
        if report.passed:
            return
        words = report.sentence + await self._take_before(worker)
        self._record.teller.slot("golden-mismatch", words, release.manifest.version)
        self._record.set_degraded(words)

    async def _take_before(self, worker: Worker) -> str:
        """Let the release before answer if it passes; what to add to the sentence."""
        workers, before = self._workers, self._record.slots.last_good
        if before is None or before.manifest_sha256 == worker.release.manifest_sha256:
            return ""
        other = await workers.held_warm(before) or await self._loader.load(before)
        if (await other.golden()).passed:
            workers.warm = None
            await workers.swap(other)
            await worker.close()
            return f"; {before.version} answers instead"
        if other is not workers.warm:
            await other.close()
        return ""
