"""The slot manager of one model: follows assignments, as the pure rules of `slots` and `judge` say.

Each step is stored before its effect. The worker of the release before stays warm, where memory
allows, so taking a bad one back is one swap. Whatever a candidate does, the active release goes on
answering; so it does when the state folder cannot be written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent import slots as rules
from agent.crashes import CrashCounter
from agent.crashloop import CrashLimits
from agent.fallback import Fallback
from agent.golden import DAY_SECONDS, GoldenLog
from agent.golden_watch import GoldenWatch
from agent.introspect import Facts
from agent.judge import Judgement, Verdict
from agent.loading import ReleaseLoader
from agent.maintenance_wait import wait_for_maintenance
from agent.memory import has_room_to_spare
from agent.pipeline import WorkerPipeline
from agent.ports import WindowReport, WorkerIncident
from agent.preparation import Preparation, ShadowRefusedError
from agent.probation import Probation
from agent.reporter import Reporter, pss_bytes
from agent.slot_record import SlotRecord
from agent.slot_workers import SlotWorkers
from agent.slots import Happening, ReleaseRef, Slots, Stage
from agent.store import STORE_RETRY_SECONDS, StateStore, StateStoreError
from agent.telling import Teller, describe
from agent.updater.client import UpdaterError
from agent.updates import Updates
from agent.workers.pool import ForkserverPool, Worker
from shoal.errors import ShoalError
from shoal.maintenance import Window
from shoal.protocol.desired import Assignment
from shoal.protocol.messages import ModelState


class ModelManager:
    """Owns the slots and the workers of one model name."""

    def __init__(
        self,
        model: str,
        files: Path,
        updates: Updates,
        store: StateStore,
        pool: ForkserverPool,
        pipeline: WorkerPipeline,
        reporter: Reporter,
        facts: Facts,
        on_change: Callable[[], None],
        crash_limits: CrashLimits | None = None,
        maintenance: Sequence[Window] = (),
        golden_seconds: float = DAY_SECONDS,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._model = model
        self._updates = updates
        self._maintenance = maintenance
        self._reporter = reporter
        self._assigned: Assignment | None = None
        self._news = asyncio.Event()
        self._changing = changing = asyncio.Lock()
        """Held while workers are swapped."""
        self._teller = Teller(model, reporter)
        self._record = record = SlotRecord(model, store, self._teller, on_change)
        self._workers = workers = SlotWorkers(pipeline, on_change)
        self._probation = Probation()
        self._crashes = CrashCounter(model, store, crash_limits or CrashLimits(), now_ms)
        loader = ReleaseLoader(model, files, pool, pipeline.check)
        self._preparation = Preparation(updates, facts, loader, pipeline, record, self.on_incident)
        self._fallback = Fallback(
            model, record, workers, loader, self._crashes, self._probation, changing
        )
        golden = GoldenLog(model, store, golden_seconds)
        self._golden = GoldenWatch(golden, record, workers, loader, changing, now_ms)

    @property
    def slots(self) -> Slots:
        """What is stored of this model."""
        return self._record.slots

    @property
    def trouble(self) -> str:
        """Why nothing, or not everything, is answered: the device is failing."""
        return self._record.trouble

    @property
    def degraded(self) -> str:
        """What is wrong although everything is answered."""
        return self._record.degraded

    @property
    def in_probation(self) -> bool:
        """Whether a candidate is being watched."""
        return self._record.in_probation

    @property
    def updating(self) -> bool:
        """Whether a candidate is under way."""
        return self._record.updating

    @property
    def running(self) -> Worker | None:
        """The worker that answers."""
        return self._workers.running

    def hold(self, reason: str) -> None:
        """Say why this model does not run yet; `run` forgets it."""
        self._record.trouble = reason

    def assign(self, assignment: Assignment) -> None:
        """Take an assignment that the director has signed."""
        self._assigned = assignment
        if rules.is_news(self.slots, assignment):
            self._news.set()

    async def run(self) -> None:
        """Restore what was running, then follow assignments."""
        self._record.trouble = ""
        with self._record.forgiving():
            self._record.save(rules.restart(self.slots))
        self._raise_floor()
        async with self._changing:
            await self._fallback.restore()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name=f"follow-{self._model}")
            group.create_task(self._fallback.watch_crashes(), name=f"crashes-{self._model}")
            group.create_task(self._golden.run(), name=f"golden-{self._model}")

    async def observe(self, reports: list[WindowReport]) -> None:
        """Report closed windows, and judge the candidate by those that are its own."""
        async with self._changing:
            for report in reports:
                self._note(report)
            if self.in_probation:
                with self._record.forgiving():
                    await self._judge()
            elif self._workers.warm is not None and not has_room_to_spare():
                await self._workers.drop_warm()

    def on_incident(self, incident: WorkerIncident) -> None:
        """A worker was lost: tell, and count it against its release."""
        self._teller.incident(incident)
        if incident.code == "quarantined":
            return  # the two losses of its batch are counted already
        candidate = self.slots.candidate
        if self.updating and candidate and candidate.assignment.version == incident.version:
            if self.in_probation:
                self._probation.add_loss(incident.code)
            return
        self._fallback.count_crash()
        if not incident.recovered:
            self._record.set_trouble(incident.sentence)

    def state(self) -> ModelState:
        """What the slots hold and what really runs, for the `state` message."""
        worker = self._workers.running
        if worker is None:  # before the first load nothing has gone wrong yet
            return describe(self.slots, None if self.trouble else self.slots.running, None)
        manifest = worker.release.manifest
        ref = ReleaseRef(
            manifest.version,
            manifest.sequence,
            worker.release.manifest_sha256,
            worker.release.variant.name,
        )
        return describe(self.slots, ref, worker.facts)

    # Following assignments

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_once()
            except StateStoreError as error:
                self._record.tell_store(error)
                await asyncio.sleep(STORE_RETRY_SECONDS)
                if not self.in_probation:
                    self._record.slots = rules.restart(self.slots)

    async def _follow_once(self) -> None:
        """Take news, or try a candidate, or load again what could not be loaded, or wait."""
        self._news.clear()
        wanted, candidate = self._assigned, self.slots.candidate
        if wanted is not None and rules.is_news(self.slots, wanted):
            async with self._changing:
                await self._supersede(wanted)
        elif candidate is not None and candidate.stage is Stage.ASSIGNED:
            await self._try(candidate.assignment)
        else:
            try:
                async with asyncio.timeout(self._fallback.retry_seconds):
                    await self._news.wait()
            except TimeoutError:
                async with self._changing:
                    await self._fallback.restore()

    async def _supersede(self, wanted: Assignment) -> None:
        """Drop a candidate in probation for a newer assignment, after going back."""
        if self.in_probation:
            await self._fallback.roll_back(
                "superseded",
                f"{self._model}: superseded by {wanted.version} during probation",
                Happening.FAILED,
            )
        self._record.save(rules.assign(self.slots, wanted))

    async def _try(self, assignment: Assignment) -> None:
        """Take an assigned release as far as probation, or to its commit where it needs none."""
        self._record.tell("accepted", "accepted", "")
        try:
            if (refused := rules.refusal(self.slots, assignment)) is not None:
                raise ShoalError(refused[1], code=refused[0])
            here = rules.find_here(self.slots, assignment)
            if here is not None:
                self._record.step(Happening.FOUND, release=here)
            ref = here or await self._preparation.fetch(assignment)
            await self._take(assignment, ref)
        except StateStoreError:
            raise
        except UpdaterError as error:
            state = "failed" if error.retryable else "rejected"
            self._refuse(state, error.code, error.sentence)
        except ShadowRefusedError as error:
            self._refuse("rejected", error.code, error.sentence, **error.numbers)
        except ShoalError as error:
            self._refuse("rejected", error.code, error.sentence)

    async def _take(self, assignment: Assignment, ref: ReleaseRef) -> None:
        """Verify a release that is on the disk, then switch to it."""
        trial = self.slots.active is not None and rules.needs_probation(self.slots, assignment)
        if trial and not await wait_for_maintenance(  # a way back never waits
            self._maintenance, f"{self._model} {ref.version}", self._news, self._record.tell
        ):
            return  # something newer is assigned
        held = await self._held(ref)
        worker = await self._preparation.verify(ref, held)
        active = self._workers.running.release if self._workers.running is not None else None
        kept = False
        try:
            if active is not None and rules.needs_probation(self.slots, assignment):
                going = await self._preparation.shadow(worker, active, assignment, self._news)
                if not going:
                    return  # something newer is assigned
            async with self._changing:
                kept = await self._switch(assignment, worker)
        finally:
            if not kept and worker not in (self._workers.running, self._workers.warm):
                await worker.close()

    async def _held(self, ref: ReleaseRef) -> Worker | None:
        """The worker that holds a release already; another warm one makes room."""
        if self._workers.answers(ref.manifest_sha256):
            return self._workers.running
        async with self._changing:
            return await self._workers.held_warm(ref)

    async def _switch(self, assignment: Assignment, worker: Worker) -> bool:
        """Let a verified release answer; the lock is held. Whether the worker is in use now."""
        version = worker.release.manifest.version
        self._record.tell("activating", "activating", "")
        if rules.needs_probation(self.slots, assignment):
            self._record.step(Happening.SWITCHED)
            self._workers.warm = await self._workers.swap(worker)
            self._probation.begin()
            self._record.tell(
                "soaking", "soaking", f"on probation for {self._soak_seconds(worker):g} s"
            )
            return True
        self._record.step(Happening.HEALTHY)
        self._raise_floor()
        self._crashes.clear()
        self._record.trouble = self._record.degraded = ""
        if worker is self._workers.running:
            self._record.tell("succeeded", "succeeded", f"{self._model} {version} runs already")
            return True
        if worker is self._workers.warm:
            self._workers.warm = None
        before = await self._workers.swap(worker)
        if before is not None:
            await before.close()
        self._record.tell("succeeded", "succeeded", f"back on {self._model} {version}")
        return True

    def _refuse(self, state: str, code: str, sentence: str, **numbers: float) -> None:
        if self.updating:
            self._record.step(Happening.FAILED, code=code, sentence=sentence)
        self._record.tell(state, code, sentence, **numbers)

    # Probation

    async def _judge(self) -> None:
        worker = self._workers.running
        if worker is None:
            return
        limits = worker.release.manifest.probation
        found = self._probation.judge(limits, self._soak_seconds(worker))
        if found.verdict is Verdict.ROLL_BACK:
            await self._fallback.roll_back(
                found.code, found.sentence, Happening.UNHEALTHY, found.numbers
            )
        elif found.verdict is Verdict.COMMIT:
            await self._commit(found)

    async def _commit(self, found: Judgement) -> None:
        self._record.step(Happening.HEALTHY)
        self._raise_floor()
        self._crashes.clear()
        self._record.trouble = self._record.degraded = ""
        if not has_room_to_spare():
            await self._workers.drop_warm()
        rows = int(dict(found.numbers).get("rows", 0))
        self._record.tell("succeeded", "succeeded", f"healthy over {rows} rows", rows=float(rows))

    def _note(self, report: WindowReport) -> None:
        """Pass a closed window on, and learn from it."""
        manifest, worker = report.release.manifest, self._workers.running
        is_running = self._workers.answers(report.release.manifest_sha256)
        trial = self.in_probation and is_running
        memory = pss_bytes(worker.pid) if worker and is_running and worker.pid else 0
        self._reporter.window(
            report,
            slot="probation" if trial else "active",
            baseline=manifest.file(manifest.baseline).sha256 if manifest.baseline else "",
            pss_bytes=memory,
        )
        if trial:
            self._probation.add_window(report, memory)
        elif is_running and report.ok:
            self._probation.add_before(report, memory)
            if self.trouble and not report.failed:
                self._record.set_trouble("")

    def _raise_floor(self) -> None:
        if oldest := self.slots.oldest_sequence:
            self._updates.raise_floor(self._model, oldest)

    def _soak_seconds(self, worker: Worker) -> float:
        candidate = self.slots.candidate
        asked = candidate.assignment.probation_seconds if candidate else None
        return worker.release.manifest.probation.seconds if asked is None else asked
