"""The slot manager of one model: carries out what the pure rules of `slots` and `judge` say.

Each step is stored before its effect. The worker of the release before stays warm, where memory
allows, so taking a bad one back is one swap. Whatever a candidate does, the active release goes on
answering; so it does when the state folder cannot be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from agent import slots as rules
from agent.crashes import CrashCounter
from agent.crashloop import CrashLimits, backoff_seconds
from agent.golden import DAY_SECONDS, GoldenLog
from agent.judge import Judgement, Verdict
from agent.loading import ReleaseLoader
from agent.maintenance import Window, seconds_until_open
from agent.memory import has_room_to_spare
from agent.pipeline import WorkerPipeline
from agent.ports import WindowReport, WorkerIncident
from agent.preparation import Preparation, ShadowRefusedError
from agent.probation import Probation
from agent.reporter import Reporter, pss_bytes
from agent.slots import Happening, ReleaseRef, Slots, Stage
from agent.store import StateStore, StateStoreError
from agent.telling import Teller, describe
from agent.updater.client import UpdaterError
from agent.workers.pool import ForkserverPool, Worker
from shoal.errors import ShoalError
from shoal.protocol.desired import Assignment
from shoal.protocol.messages import ModelState

STORE_RETRY_SECONDS = 15.0
MAINTENANCE_LOOK_SECONDS = 60.0
"""So often at least: the clock may be set meanwhile."""
GOLDEN_LOOK_SECONDS = 60.0


class ModelManager:
    """Owns the slots and the workers of one model name."""

    def __init__(
        self,
        model: str,
        state_dir: Path,
        store: StateStore,
        pool: ForkserverPool,
        pipeline: WorkerPipeline,
        reporter: Reporter,
        facts: dict[str, str | int | float | bool],
        on_change: Callable[[], None],
        crash_limits: CrashLimits | None = None,
        maintenance: Sequence[Window] = (),
        golden_seconds: float = DAY_SECONDS,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._model = model
        self._maintenance = maintenance
        self._store = store
        self._pipeline = pipeline
        self._reporter = reporter
        self._on_change = on_change
        self._crashes = CrashCounter(model, store, crash_limits or CrashLimits(), now_ms)
        self._golden = GoldenLog(model, store, golden_seconds)
        self._now_ms = now_ms
        self._teller = Teller(model, reporter)
        self._loader = ReleaseLoader(model, state_dir / "files", pool, pipeline.check)
        self._preparation = Preparation(state_dir, facts, self._loader, pipeline, self)
        self._probation = Probation()
        self._assigned: Assignment | None = None
        self._news = asyncio.Event()
        self._crashing = asyncio.Event()
        self._changing = asyncio.Lock()
        """Held while workers are swapped."""
        self._running: Worker | None = None
        self._warm: Worker | None = None
        self._failed_loads = 0
        self.slots = store.slots(model)
        self.trouble = ""
        """Why nothing, or not everything, is answered: the device is failing."""
        self.degraded = ""
        """What is wrong although everything is answered."""

    @property
    def in_probation(self) -> bool:
        """Whether a candidate is being watched."""
        return self._stage() is Stage.PROBATION

    @property
    def updating(self) -> bool:
        """Whether a candidate is under way."""
        stage = self._stage()
        return stage is not None and stage not in rules.FINAL

    @property
    def running(self) -> Worker | None:
        """The worker that answers."""
        return self._running

    def hold(self, reason: str) -> None:
        """Say why this model does not run yet; `run` forgets it."""
        self.trouble = reason

    def assign(self, assignment: Assignment) -> None:
        """Take an assignment that the director has signed."""
        self._assigned = assignment
        if rules.is_news(self.slots, assignment):
            self._news.set()

    async def run(self) -> None:
        """Restore what was running, then follow assignments."""
        self.trouble = ""
        with self._forgiving():
            self._save(rules.restart(self.slots))
        async with self._changing:
            await self._restore()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name=f"follow-{self._model}")
            group.create_task(self._watch_crashes(), name=f"crashes-{self._model}")
            group.create_task(self._watch_golden(), name=f"golden-{self._model}")

    async def observe(self, reports: list[WindowReport]) -> None:
        """Report closed windows, and judge the candidate by those that are its own."""
        async with self._changing:
            for report in reports:
                self._note(report)
            if self.in_probation:
                with self._forgiving():
                    await self._judge()
            elif self._warm is not None and not has_room_to_spare():
                await self._drop_warm()

    def on_incident(self, incident: WorkerIncident) -> None:
        """A worker was lost: tell, and count it against its release."""
        self._teller.incident(incident)
        if incident.code == "quarantined":
            return  # its two losses are counted already
        candidate = self.slots.candidate
        if self.updating and candidate and candidate.assignment.version == incident.version:
            if self.in_probation:
                self._probation.add_loss(incident.code)
            return
        self._count_crash()
        if not incident.recovered:
            self._set_trouble(incident.sentence)

    def state(self) -> ModelState:
        """What the slots hold and what really runs, for the `state` message."""
        worker = self._running
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
                self._tell_store(error)
                await asyncio.sleep(STORE_RETRY_SECONDS)
                self.slots = rules.restart(self.slots) if not self.in_probation else self.slots

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
            idle = self.slots.running is not None and self._running is None
            seconds = max(backoff_seconds(self._failed_loads + 1), 0.5) if idle else None
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                async with self._changing:
                    await self._restore()

    async def _supersede(self, wanted: Assignment) -> None:
        """Drop a candidate in probation for a newer assignment, after going back."""
        if self.in_probation:
            await self._roll_back(
                "superseded",
                f"{self._model}: superseded by {wanted.version} during probation",
                Happening.FAILED,
                (),
            )
        self._save(rules.assign(self.slots, wanted))

    async def _try(self, assignment: Assignment) -> None:
        """Take an assigned release as far as probation, or to its commit where it needs none."""
        self.tell("accepted", "accepted", "")
        try:
            if (refused := rules.refusal(self.slots, assignment)) is not None:
                raise ShoalError(refused[1], code=refused[0])
            here = rules.find_here(self.slots, assignment)
            if here is not None:
                self.step(Happening.FOUND, release=here)
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
        if not await self._wait_for_maintenance(assignment, ref):
            return  # something newer is assigned
        held = await self._held(ref)
        worker = await self._preparation.verify(ref, held)
        active = self._running.release if self._running is not None else None
        kept = False
        try:
            if active is not None and rules.needs_probation(self.slots, assignment):
                going = await self._preparation.shadow(worker, active, assignment, self._news)
                if not going:
                    return  # something newer is assigned
            async with self._changing:
                kept = await self._switch(assignment, worker)
        finally:
            if not kept and worker not in (self._running, self._warm):
                await worker.close()

    async def _wait_for_maintenance(self, assignment: Assignment, ref: ReleaseRef) -> bool:
        """Wait until a candidate may be activated; False when news came. A way back never waits."""
        if self.slots.active is None or not rules.needs_probation(self.slots, assignment):
            return True
        told = False
        while wait := seconds_until_open(self._maintenance, datetime.now(UTC)):
            if not told:
                words = f"{self._model} {ref.version} waits {wait / 60:.0f} min for maintenance"
                self.tell("staged", "waits-for-maintenance", words)
                told = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait, MAINTENANCE_LOOK_SECONDS)):
                    await self._news.wait()
                return False
        return True

    async def _held(self, ref: ReleaseRef) -> Worker | None:
        """The worker that holds a release already; another warm one makes room."""
        worker = self._running
        if worker is not None and worker.release.manifest_sha256 == ref.manifest_sha256:
            return worker
        async with self._changing:
            return await self._held_warm(ref)

    async def _switch(self, assignment: Assignment, worker: Worker) -> bool:
        """Let a verified release answer; the lock is held. Whether the worker is in use now."""
        version = worker.release.manifest.version
        self.tell("activating", "activating", "")
        if rules.needs_probation(self.slots, assignment):
            self.step(Happening.SWITCHED)
            self._warm = await self._swap(worker)
            self._probation.begin()
            self.tell("soaking", "soaking", f"on probation for {self._soak_seconds(worker):g} s")
            return True
        self.step(Happening.HEALTHY)
        self._crashes.clear()
        self.trouble = self.degraded = ""
        if worker is self._running:
            self.tell("succeeded", "succeeded", f"{self._model} {version} runs already")
            return True
        if worker is self._warm:
            self._warm = None
        before = await self._swap(worker)
        if before is not None:
            await before.close()
        self.tell("succeeded", "succeeded", f"back on {self._model} {version}")
        return True

    def _refuse(self, state: str, code: str, sentence: str, **numbers: float) -> None:
        if self.updating:
            self._step(Happening.FAILED, code=code, sentence=sentence)
        self.tell(state, code, sentence, **numbers)

    # Probation

    async def _judge(self) -> None:
        worker = self._running
        if worker is None:
            return
        limits = worker.release.manifest.probation
        found = self._probation.judge(limits, self._soak_seconds(worker))
        if found.verdict is Verdict.ROLL_BACK:
            await self._roll_back(found.code, found.sentence, Happening.UNHEALTHY, found.numbers)
        elif found.verdict is Verdict.COMMIT:
            await self._commit(found)

    async def _commit(self, found: Judgement) -> None:
        self.step(Happening.HEALTHY)
        self._crashes.clear()
        self.trouble = self.degraded = ""
        if not has_room_to_spare():
            await self._drop_warm()
        rows = int(dict(found.numbers).get("rows", 0))
        self.tell("succeeded", "succeeded", f"healthy over {rows} rows", rows=float(rows))

    async def _roll_back(
        self,
        code: str,
        sentence: str,
        happening: Happening,
        numbers: tuple[tuple[str, float], ...],
    ) -> None:
        """Go back to the active release; the lock is held."""
        candidate = self.slots.candidate
        version = candidate.assignment.version if candidate else ""
        to = self.slots.active.version if self.slots.active else "nothing"
        words = f"{self._model} {version} rolled back to {to}: {sentence}"
        after = rules.step(self.slots, happening, code=code, sentence=words)
        try:
            self._save(after)
        except StateStoreError as error:  # a bad release goes even if that cannot be written down
            self._tell_store(error)
            self.slots = after
        warm, self._warm = self._warm, None
        failed = await self._swap(warm)
        if failed is not None:
            await failed.close()
        if self._running is None:
            await self._restore()
        self.tell("rolled_back", code, words, **dict(numbers))

    # Loading what answers

    async def _restore(self) -> None:
        """Load what answers according to the slots, else an older release; the lock is held."""
        if self.in_probation:
            await self._resume_probation()
            return
        refs = () if self.slots.stopped else (self.slots.active, self.slots.last_good)
        if self.slots.stopped:
            self._set_trouble(self.slots.stopped)
        for ref in refs:
            if ref is None:
                continue
            try:
                await self._swap(await self._loader.load(ref))
            except ShoalError as error:
                self._failed_loads += 1
                self._set_trouble(error.sentence)
                self._teller.slot(error.code, error.sentence, ref.version)
                if ref == self.slots.active and error.code in ("worker-crashed", "worker-memory"):
                    self._count_crash()
            else:
                self._failed_loads = 0
                if ref == self.slots.active:
                    self._set_trouble("")
                return

    async def _resume_probation(self) -> None:
        assert self.slots.running is not None
        try:
            if self.slots.active is not None:
                self._warm = await self._loader.load(self.slots.active)
            await self._swap(await self._loader.load(self.slots.running))
            self._probation.begin()
        except ShoalError as error:
            await self._roll_back(error.code, error.sentence, Happening.FAILED, ())

    async def _watch_crashes(self) -> None:
        """Give the active release up when it has crashed too often."""
        while True:
            await self._crashing.wait()
            self._crashing.clear()
            async with self._changing:
                with self._forgiving():
                    await self._give_up()

    async def _give_up(self) -> None:
        """Take the one before, or stop the model; the lock is held."""
        active = self.slots.active
        if active is None or self.in_probation or self.slots.stopped:
            return
        limits = self._crashes.limits
        last_good = self.slots.last_good
        then = f"back to {last_good.version}" if last_good else "stopped, since none was before"
        sentence = (
            f"{self._model} {active.version}: {limits.crashes} workers lost within "
            f"{limits.seconds:g} s; {then}"
        )
        after = rules.give_up(self.slots, sentence)
        reverted = after.candidate != self.slots.candidate
        self._save(after)
        self._crashes.clear()
        failed = await self._swap(await self._load_instead(last_good))
        if failed is not None:
            await failed.close()
        if self._running is None:
            await self._restore()
        self._teller.slot("crash-loop", sentence, active.version)
        if reverted:
            self.tell("rolled_back", "crash-loop", sentence)

    async def _load_instead(self, ref: ReleaseRef | None) -> Worker | None:
        """A worker for the release before, while the one that is given up still answers."""
        if ref is None:
            await self._drop_warm()
            return None
        if (warm := await self._held_warm(ref)) is not None:
            self._warm = None
            return warm
        try:
            return await self._loader.load(ref)
        except ShoalError as error:  # `_restore` tries again
            self._teller.slot(error.code, error.sentence, ref.version)
            return None

    def _count_crash(self) -> None:
        active = self.slots.active
        if active is not None and self._crashes.add(active):
            self._crashing.set()

    async def _watch_golden(self) -> None:
        """Run the golden samples of what answers again when they are due."""
        while True:
            async with self._changing:
                worker = self._running
                if worker is not None and not self.in_probation:
                    with contextlib.suppress(ShoalError):  # lost: the next request replaces it
                        await self._check_golden(worker)
            await asyncio.sleep(GOLDEN_LOOK_SECONDS)

    async def _check_golden(self, worker: Worker) -> None:
        """On a mismatch let the release before answer, if that one is right; the lock is held."""
        release, now_ms = worker.release, self._now_ms()
        if not self._golden.is_due(release, worker.facts, now_ms):
            return
        report = await worker.golden()
        self._golden.note(release, worker.facts, now_ms)
        if report.passed:
            return
        before, words = self.slots.last_good, report.sentence
        if before is not None and before.manifest_sha256 != release.manifest_sha256:
            other = await self._held_warm(before) or await self._loader.load(before)
            if (await other.golden()).passed:
                self._warm = None
                await self._swap(other)
                await worker.close()
                words += f"; {before.version} answers instead"
            elif other is not self._warm:
                await other.close()
        self._teller.slot("golden-mismatch", words, release.manifest.version)
        self._set_degraded(words)

    # Helpers

    async def _held_warm(self, ref: ReleaseRef) -> Worker | None:
        warm = self._warm
        if warm is not None and warm.release.manifest_sha256 == ref.manifest_sha256:
            return warm
        await self._drop_warm()
        return None

    async def _swap(self, worker: Worker | None) -> Worker | None:
        before = await self._pipeline.swap(worker)
        self._running = worker
        self._on_change()
        return before

    async def _drop_warm(self) -> None:
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.close()

    def _note(self, report: WindowReport) -> None:
        """Pass a closed window on, and learn from it."""
        manifest = report.release.manifest
        worker = self._running
        is_running = (
            worker is not None and worker.release.manifest_sha256 == report.release.manifest_sha256
        )
        trial = bool(self.in_probation and is_running)
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
                self._set_trouble("")

    def _soak_seconds(self, worker: Worker) -> float:
        candidate = self.slots.candidate
        asked = candidate.assignment.probation_seconds if candidate else None
        return worker.release.manifest.probation.seconds if asked is None else asked

    def _stage(self) -> Stage | None:
        return self.slots.candidate.stage if self.slots.candidate else None

    def step(self, happening: Happening, *, release: ReleaseRef | None = None) -> None:
        """Store that something happened to the candidate."""
        self._step(happening, release=release)

    def _step(
        self,
        happening: Happening,
        *,
        release: ReleaseRef | None = None,
        code: str = "",
        sentence: str = "",
    ) -> None:
        self._save(rules.step(self.slots, happening, release=release, code=code, sentence=sentence))

    def _save(self, slots: Slots) -> None:
        self._store.save_slots(slots)
        self.slots = slots
        self._on_change()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Go on with what runs when a step cannot be stored."""
        try:
            yield
        except StateStoreError as error:
            self._tell_store(error)

    def _tell_store(self, error: StateStoreError) -> None:
        running = self.slots.running
        self._teller.slot(error.code, error.sentence, running.version if running else "")
        self._set_degraded(error.sentence)

    def _set_trouble(self, sentence: str) -> None:
        if sentence != self.trouble:
            self.trouble = sentence
            self._on_change()

    def _set_degraded(self, sentence: str) -> None:
        if sentence != self.degraded:
            self.degraded = sentence
            self._on_change()

    def tell(self, state: str, code: str, sentence: str, **numbers: float) -> None:
        """Report how far the candidate's execution has come."""
        self._teller.execution(self.slots.candidate, state, code, sentence, **numbers)
