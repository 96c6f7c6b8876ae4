"""Coming back to a release that answers: after a start, a bad candidate or too many crashes.

Except for `watch_crashes`, whoever calls holds the model's lock.
"""

from __future__ import annotations

import asyncio

from agent import slots as rules
from agent.crashes import CrashCounter
from agent.crashloop import CrashLimits, backoff_seconds
from agent.loading import ReleaseLoader
from agent.probation import Probation
from agent.slot_record import SlotRecord
from agent.slot_workers import SlotWorkers
from agent.slots import Happening, ReleaseRef
from agent.store import StateStoreError
from agent.workers.pool import Worker
from shoal.errors import ShoalError


class Fallback:
    """Loads what answers according to the slots of one model."""

    def __init__(
        self,
        model: str,
        record: SlotRecord,
        workers: SlotWorkers,
        loader: ReleaseLoader,
        crashes: CrashCounter,
        probation: Probation,
        changing: asyncio.Lock,
    ) -> None:
        self._model = model
        self._record = record
        self._workers = workers
        self._loader = loader
        self._crashes = crashes
        self._probation = probation
        self._changing = changing
        self._crashing = asyncio.Event()
        self._failed_loads = 0

    @property
    def retry_seconds(self) -> float | None:
        """How long until `restore` is due again; None while something answers, or nothing can."""
        if self._record.slots.running is None or self._workers.running is not None:
            return None
        return max(backoff_seconds(self._failed_loads + 1), 0.5)

    async def restore(self) -> None:
        """Load what answers according to the slots, else an older release."""
        record, slots = self._record, self._record.slots
        if record.in_probation:
            await self._resume_probation()
            return
        refs = () if slots.stopped else (slots.active, slots.last_good)
        if slots.stopped:
            record.set_trouble(slots.stopped)
        for ref in refs:
            if ref is None:
                continue
            try:
                await self._workers.swap(await self._loader.load(ref))
            except ShoalError as error:
                self._failed_loads += 1
                record.set_trouble(error.sentence)
                record.teller.slot(error.code, error.sentence, ref.version)
                if ref == slots.active and error.code in ("worker-crashed", "worker-memory"):
                    self.count_crash()
            else:
                self._failed_loads = 0
                if ref == slots.active:
                    record.set_trouble("")
                return

    async def roll_back(
        self,
        code: str,
        sentence: str,
        happening: Happening,
        numbers: tuple[tuple[str, float], ...] = (),
    ) -> None:
        """Go back from the candidate to the active release."""
        record, slots = self._record, self._record.slots
        version = slots.candidate.assignment.version if slots.candidate else ""
        to = slots.active.version if slots.active else "nothing"
        words = f"{self._model} {version} rolled back to {to}: {sentence}"
        after = rules.step(slots, happening, code=code, sentence=words)
        try:
            record.save(after)
        except StateStoreError as error:  # a bad release goes even if that cannot be written down
            record.tell_store(error)
            record.slots = after
        warm, self._workers.warm = self._workers.warm, None
        await self._replace(warm)
        record.tell("rolled_back", code, words, **dict(numbers))

    def count_crash(self) -> None:
        """A worker of the active release was lost outside a probation."""
        active = self._record.slots.active
        if active is not None and self._crashes.add(active):
            self._crashing.set()

    async def watch_crashes(self) -> None:
        """Give the active release up when it has crashed too often, for ever."""
        while True:
            await self._crashing.wait()
            self._crashing.clear()
            async with self._changing:
                with self._record.forgiving():
                    await self._give_up()

    async def _resume_probation(self) -> None:
        slots = self._record.slots
        assert slots.running is not None
        try:
            if slots.active is not None:
                self._workers.warm = await self._loader.load(slots.active)
            await self._workers.swap(await self._loader.load(slots.running))
            self._probation.begin()
        except ShoalError as error:
            await self.roll_back(error.code, error.sentence, Happening.FAILED)

    async def _give_up(self) -> None:
        """Take the release before, or stop the model."""
        record, slots = self._record, self._record.slots
        active, last_good = slots.active, slots.last_good
        if active is None or record.in_probation or slots.stopped:
            return
        sentence = give_up_sentence(self._model, active, last_good, self._crashes.limits)
        after = rules.give_up(slots, sentence)
        record.save(after)
        self._crashes.clear()
        await self._replace(await self._load_instead(last_good))
        record.teller.slot("crash-loop", sentence, active.version)
        if after.candidate != slots.candidate:
            record.tell("rolled_back", "crash-loop", sentence)

    async def _load_instead(self, ref: ReleaseRef | None) -> Worker | None:
        """A worker for the release before, while the one that is given up still answers."""
        if ref is None:
            await self._workers.drop_warm()
            return None
        if (warm := await self._workers.held_warm(ref)) is not None:
            self._workers.warm = None
            return warm
        try:
            return await self._loader.load(ref)
        except ShoalError as error:  # `restore` tries again
            self._record.teller.slot(error.code, error.sentence, ref.version)
            return None

    async def _replace(self, worker: Worker | None) -> None:
        """End the one that answers; without another, load what the slots say."""
        failed = await self._workers.swap(worker)
        if failed is not None:
            await failed.close()
        if self._workers.running is None:
            await self.restore()


def give_up_sentence(
    model: str, active: ReleaseRef, last_good: ReleaseRef | None, limits: CrashLimits
) -> str:
    """Why a release is given up, and what comes instead. Pure."""
    then = f"back to {last_good.version}" if last_good else "stopped, since none was before"
    return (
        f"{model} {active.version}: {limits.crashes} workers lost within "
        f"{limits.seconds:g} s; {then}"
    )
