"""The slot manager of one model: carries out what the pure rules of `slots` and `judge` say.

Each step is stored before its effect. The old worker stays warm through probation, so taking a
bad candidate back is one swap. Whatever a candidate does, the active release goes on answering.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent import slots as rules
from agent.judge import Evidence, Judgement, Verdict, judge, summarise_before
from agent.pipeline import WorkerPipeline
from agent.ports import LoadRefusedError, StagedRelease, WindowReport, WorkerIncident
from agent.reporter import Reporter, pss_bytes
from agent.slots import Happening, ReleaseRef, Slots, Stage
from agent.store import StateStore
from agent.updater.client import UpdaterError, ask_updater
from agent.updater.wire import FetchRequest, Staged
from agent.workers.pool import ForkserverPool, Worker
from shoal.errors import ShoalError
from shoal.protocol.desired import Assignment
from shoal.protocol.manifest import decode_manifest
from shoal.protocol.messages import ModelState

log = logging.getLogger("agent.slots")

BEFORE_WINDOWS = 20
"""Last windows of the active release, with which a candidate is compared."""


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
    ) -> None:
        self._model = model
        self._state_dir = state_dir
        self._store = store
        self._pool = pool
        self._pipeline = pipeline
        self._reporter = reporter
        self._facts = facts
        self._on_change = on_change
        self._assigned: Assignment | None = None
        self._news = asyncio.Event()
        self._judging = asyncio.Lock()
        self._running: Worker | None = None
        self._warm: Worker | None = None
        self._evidence = Evidence()
        self._probation_since = 0.0
        self._recent: deque[WindowReport] = deque(maxlen=BEFORE_WINDOWS)
        self.slots = Slots(model)
        self.trouble = ""

    @property
    def in_probation(self) -> bool:
        """Whether a candidate is being watched."""
        return self._stage() is Stage.PROBATION

    @property
    def updating(self) -> bool:
        """Whether a candidate is under way."""
        stage = self._stage()
        return stage is not None and stage not in rules.FINAL

    def assign(self, assignment: Assignment) -> None:
        """Take an assignment that the director has signed."""
        self._assigned = assignment
        self._news.set()

    async def run(self) -> None:
        """Restore what was running, then follow assignments."""
        self._save(rules.restart(self._store.slots(self._model)))
        await self._restore()
        while True:
            candidate = self.slots.candidate
            if candidate is not None and candidate.stage is Stage.ASSIGNED:
                await self._try(candidate.assignment)
            await self._news.wait()
            self._news.clear()
            wanted = self._assigned
            if wanted is not None and rules.is_news(self.slots, wanted):
                async with self._judging:
                    await self._supersede(wanted)

    async def observe(self, reports: list[WindowReport]) -> None:
        """Report closed windows, and judge the candidate by those that are its own."""
        async with self._judging:
            for report in reports:
                self._note(report)
            if self.in_probation:
                await self._judge()

    def on_incident(self, incident: WorkerIncident) -> None:
        """A worker was lost: tell, and count it against a candidate."""
        severity = "warning" if incident.recovered else "error"
        self._reporter.event(
            "worker",
            incident.code,
            incident.sentence,
            severity=severity,
            model=incident.model,
            version=incident.version,
        )
        candidate = self.slots.candidate
        if self.in_probation and candidate and candidate.release:
            if candidate.release.version == incident.version:
                self._evidence = self._evidence.with_crash()
        elif not incident.recovered:
            self._set_trouble(incident.sentence)

    def state(self) -> ModelState:
        """What the slots hold, for the `state` message."""
        running, last_good = self.slots.running, self.slots.last_good
        candidate = self.slots.candidate
        facts = self._running.facts if self._running else None
        return ModelState(
            model=self._model,
            active_version=running.version if running else None,
            active_sequence=running.sequence if running else None,
            active_manifest=running.manifest_sha256 if running else None,
            active_variant=running.variant if running else None,
            last_good_version=last_good.version if last_good else None,
            candidate_version=candidate.assignment.version if candidate else None,
            candidate_state=candidate.stage.value if candidate else None,
            runtime=facts.runtime if facts else None,
            runtime_version=facts.version if facts else None,
            kernels=facts.kernels if facts else None,
        )

    # Carrying out

    async def _restore(self) -> None:
        """Load what answers according to the slots; fall back to older releases."""
        if self.in_probation:
            assert self.slots.running is not None
            try:
                if self.slots.active is not None:
                    self._warm = await self._load(self.slots.active)
                await self._swap(await self._load(self.slots.running))
                self._begin_probation()
            except ShoalError as error:
                await self._roll_back(error.code, error.sentence, Happening.FAILED, ())
            return
        for ref in (self.slots.active, self.slots.last_good):
            if ref is None:
                continue
            try:
                await self._swap(await self._load(ref))
            except ShoalError as error:
                self._set_trouble(error.sentence)
                self._reporter.event(
                    "slot",
                    error.code,
                    error.sentence,
                    severity="error",
                    model=self._model,
                    version=ref.version,
                )
            else:
                return

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
        """Take an assigned release as far as probation."""
        self._tell("accepted", "accepted", "")
        try:
            if (refused := rules.refusal(self.slots, assignment)) is not None:
                raise ShoalError(refused[1], code=refused[0])
            active = self.slots.active
            if active is not None and active.manifest_sha256 == assignment.manifest_sha256:
                await self._keep(active)
                return
            ref = await self._fetch(assignment)
            await self._switch(assignment, ref)
        except UpdaterError as error:
            state = "failed" if error.retryable else "rejected"
            await self._refuse(state, error.code, error.sentence)
        except (LoadRefusedError, ShoalError) as error:
            await self._refuse("rejected", error.code, error.sentence)

    async def _keep(self, active: ReleaseRef) -> None:
        """The release assigned is the one that is committed."""
        self._step(Happening.FETCH_STARTED)
        self._step(Happening.FETCHED, release=active)
        self._step(Happening.LOAD_STARTED)
        if self._running is None:
            await self._swap(await self._load(active))
        self._step(Happening.HEALTHY)
        self._tell("succeeded", "succeeded", f"{self._model} {active.version} runs already")

    async def _fetch(self, assignment: Assignment) -> ReleaseRef:
        self._step(Happening.FETCH_STARTED)
        self._tell("downloading", "downloading", "")
        reply = await ask_updater(FetchRequest(str(self._state_dir), assignment, self._facts))
        assert isinstance(reply, Staged)
        ref = ReleaseRef(
            assignment.version,
            assignment.release_sequence,
            assignment.manifest_sha256,
            reply.variant,
        )
        self._step(Happening.FETCHED, release=ref)
        self._tell("staged", "staged", f"variant {reply.variant}")
        return ref

    async def _switch(self, assignment: Assignment, ref: ReleaseRef) -> None:
        self._step(Happening.LOAD_STARTED)
        self._tell("verifying", "verifying", "")
        worker = await self._load(ref)
        report = await worker.golden()
        if not report.passed:
            await worker.close()
            raise ShoalError(report.sentence, code="golden-mismatch")
        self._tell("activating", "activating", report.sentence)
        if assignment.intent == "rollback":
            self._step(Happening.HEALTHY)
            before = await self._swap(worker)
            if before is not None:
                await before.close()
            self._tell("succeeded", "succeeded", f"back on {self._model} {ref.version}")
            return
        self._step(Happening.SWITCHED)
        self._warm = await self._swap(worker)
        self._begin_probation()
        seconds = self._probation_seconds(worker)
        self._tell("soaking", "soaking", f"on probation for {seconds:g} s")

    async def _judge(self) -> None:
        worker = self._running
        if worker is None:
            return
        limits = worker.release.manifest.probation
        elapsed = time.monotonic() - self._probation_since
        found = judge(
            self._evidence,
            limits,
            elapsed,
            self._probation_seconds(worker),
            summarise_before(self._recent),
        )
        if found.verdict is Verdict.ROLL_BACK:
            await self._roll_back(found.code, found.sentence, Happening.UNHEALTHY, found.numbers)
        elif found.verdict is Verdict.COMMIT:
            await self._commit(found)

    async def _commit(self, found: Judgement) -> None:
        self._step(Happening.HEALTHY)
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.close()
        self.trouble = ""
        rows = int(dict(found.numbers).get("rows", 0))
        self._tell("succeeded", "succeeded", f"healthy over {rows} rows", rows=float(rows))

    async def _roll_back(
        self,
        code: str,
        sentence: str,
        happening: Happening,
        numbers: tuple[tuple[str, float], ...],
    ) -> None:
        candidate = self.slots.candidate
        version = candidate.assignment.version if candidate else ""
        to = self.slots.active.version if self.slots.active else "nothing"
        words = f"{self._model} {version} rolled back to {to}: {sentence}"
        self._step(happening, code=code, sentence=words)
        failed = await self._swap(self._warm)
        self._warm = None
        if failed is not None:
            await failed.close()
        if self._running is None and self.slots.active is not None:
            await self._restore()
        self._tell("rolled_back", code, words, severity="error", **dict(numbers))

    async def _refuse(self, state: str, code: str, sentence: str) -> None:
        if self.updating:
            self._step(Happening.FAILED, code=code, sentence=sentence)
        self._tell(state, code, sentence, severity="error")

    # Helpers

    async def _load(self, ref: ReleaseRef) -> Worker:
        folder = self._state_dir / "files"
        path = folder / ref.manifest_sha256
        try:
            manifest = decode_manifest(path.read_bytes())
            variant = next(v for v in manifest.variants if v.name == ref.variant)
        except (OSError, StopIteration) as error:
            raise LoadRefusedError(
                f"{self._model} {ref.version}: {path.name[:12]}…: {error!r}", code="missing-file"
            ) from error
        return await self._pool.load(StagedRelease(manifest, ref.manifest_sha256, variant, folder))

    async def _swap(self, worker: Worker | None) -> Worker | None:
        before = await self._pipeline.swap(worker)
        self._running = worker
        self._on_change()
        return before

    def _note(self, report: WindowReport) -> None:
        """Pass a closed window on, and learn from it."""
        manifest = report.release.manifest
        running = self.slots.running
        is_running = (
            running is not None and running.manifest_sha256 == report.release.manifest_sha256
        )
        trial = bool(self.in_probation and is_running)
        baseline = manifest.file(manifest.baseline).sha256 if manifest.baseline else ""
        pid = self._running.pid if self._running and is_running else 0
        self._reporter.window(
            report,
            slot="probation" if trial else "active",
            baseline=baseline,
            pss_bytes=pss_bytes(pid) if pid else 0,
        )
        if trial:
            self._evidence = self._evidence.with_report(report)
        elif is_running and report.ok:
            past = self._recent[-1].release if self._recent else report.release
            if past.manifest_sha256 != report.release.manifest_sha256:
                self._recent.clear()  # another release's past is no measure
            self._recent.append(report)
            if self.trouble and not report.failed:
                self._set_trouble("")

    def _begin_probation(self) -> None:
        self._evidence = Evidence()
        self._probation_since = time.monotonic()

    def _probation_seconds(self, worker: Worker) -> float:
        candidate = self.slots.candidate
        asked = candidate.assignment.probation_seconds if candidate else None
        return worker.release.manifest.probation.seconds if asked is None else asked

    def _stage(self) -> Stage | None:
        return self.slots.candidate.stage if self.slots.candidate else None

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

    def _set_trouble(self, sentence: str) -> None:
        if sentence != self.trouble:
            self.trouble = sentence
            self._on_change()

    def _tell(
        self, state: str, code: str, sentence: str, severity: str = "info", **numbers: float
    ) -> None:
        """Report how far the candidate's execution has come."""
        candidate = self.slots.candidate
        if candidate is None:
            return
        assignment = candidate.assignment
        log.info(
            "execution model=%s version=%s state=%s code=%s sentence=%r",
            self._model,
            assignment.version,
            state,
            code,
            sentence,
        )
        self._reporter.event(
            "execution",
            code,
            sentence,
            severity=severity,
            model=self._model,
            version=assignment.version,
            rollout=assignment.rollout or None,
            attempt=assignment.attempt,
            data={"state": state, "intent": assignment.intent, **numbers},
        )


def collect_garbage(files: Path, kept_manifests: set[str], older_than_seconds: float) -> int:
    """Delete files that no kept manifest names and that are older; return how many."""
    kept = set(kept_manifests)
    for sha256 in kept_manifests:
        path = files / sha256
        if path.exists():
            manifest = msgspec.json.decode(path.read_bytes())
            kept |= {entry["sha256"] for entry in manifest["files"]}
    limit = time.time() - older_than_seconds
    gone = 0
    for path in files.iterdir():
        if path.name.removesuffix(".part") not in kept and path.stat().st_mtime < limit:
            path.unlink()
            gone += 1
    return gone
