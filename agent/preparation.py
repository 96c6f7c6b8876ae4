"""Preparing a candidate: fetch, load, warm up, golden samples, shadow run.

Each step is stored when it is reached. While all of it goes on, the active release answers; a
failure at any step is a `ShoalError` whose code and sentence the manager refuses the release with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from agent.loading import ReleaseLoader
from agent.pipeline import WorkerPipeline
from agent.ports import StagedRelease, WorkerIncident
from agent.shadow import Agreement, ShadowRun, disagreement, is_comparable
from agent.slots import Happening, ReleaseRef
from agent.updater.wire import Progress, Reached
from agent.updates import Updates
from agent.workers.pool import Worker
from shoal.errors import ShoalError
from shoal.protocol.desired import Assignment
from shoal.protocol.manifest import Shadow

_REACHED = {"verified": Happening.VERIFIED, "compatible": Happening.FITS}


class Diary(Protocol):
    """Where a preparation stores its steps and tells of them."""

    def step(self, happening: Happening, *, release: ReleaseRef | None = None) -> None: ...
    def tell(self, state: str, code: str, sentence: str, **numbers: float) -> None: ...


class Preparation:
    """Prepares candidates of one model."""

    def __init__(
        self,
        updates: Updates,
        facts: dict[str, str | int | float | bool],
        loader: ReleaseLoader,
        pipeline: WorkerPipeline,
        diary: Diary,
        on_incident: Callable[[WorkerIncident], None],
    ) -> None:
        self._updates = updates
        self._facts = facts
        self._loader = loader
        self._pipeline = pipeline
        self._diary = diary
        self._on_incident = on_incident

    async def fetch(self, assignment: Assignment) -> ReleaseRef:
        """Bring the release onto the disk: downloading … staged."""
        self._diary.step(Happening.FETCH_STARTED)
        self._diary.tell("downloading", "downloading", "")
        reply = await self._updates.fetch(assignment, self._facts, self._on_progress)
        ref = ReleaseRef(
            assignment.version,
            assignment.release_sequence,
            assignment.manifest_sha256,
            reply.variant,
            reply.memory_bytes,
        )
        self._diary.step(Happening.FETCHED, release=ref)
        self._diary.tell("staged", "staged", f"variant {reply.variant}")
        return ref

    async def verify(self, ref: ReleaseRef, worker: Worker | None) -> Worker:
        """Load the release unless `worker` holds it already, and run the golden samples."""
        self._diary.tell("verifying", "verifying", "")
        mine = worker is None
        worker = worker or await self._loader.load(ref)
        try:
            self._diary.step(Happening.LOADED)
            self._diary.step(Happening.WARMED)
            report = await worker.golden()
            if not report.passed:
                raise ShoalError(report.sentence, code="golden-mismatch")
            self._diary.step(Happening.GOLDEN_PASSED)
            self._diary.tell("verifying", "golden", report.sentence, golden_worst=report.worst)
        except BaseException:
            if mine:
                await worker.close()
            raise
        return worker

    async def shadow(
        self, worker: Worker, active: StagedRelease, assignment: Assignment, news: asyncio.Event
    ) -> bool:
        """Run the candidate beside the active release; False when news ended it early."""
        manifest = worker.release.manifest
        limits = shadow_limits(manifest.shadow, assignment)
        if not limits.rows and not limits.seconds:
            return True
        if not is_comparable(manifest.contract, active.manifest.contract):
            sentence = f"no shadow run: other rows or outputs than {active.manifest.version}"
            self._diary.tell("verifying", "not-comparable", sentence)
            return True
        self._diary.step(Happening.SHADOW_STARTED)
        self._diary.tell("shadowing", "shadowing", "")
        worker.on_incident = self._on_incident
        run = ShadowRun(worker, limits, len(manifest.contract.features))
        if self._pipeline.recorder is not None:
            run.on_difference = partial(self._pipeline.recorder.disagreed, active)
        self._pipeline.beside = run.offer
        comparing = asyncio.create_task(run.run(), name=f"shadow-{manifest.model}")
        waking = asyncio.create_task(news.wait())
        try:
            await asyncio.wait({comparing, waking}, return_when=asyncio.FIRST_COMPLETED)
            if not comparing.done():
                return False
            self._check(run.agreement, limits, worker, manifest.probation.max_crashes)
        finally:
            self._pipeline.beside = None
            for task in (comparing, waking):
                task.cancel()
            await asyncio.wait({comparing, waking})
        await worker.take_statistics()  # what it saw beside is no part of what it will answer
        return True

    def _check(self, found: Agreement, limits: Shadow, worker: Worker, max_crashes: int) -> None:
        """Tell the agreement, or refuse with it."""
        if worker.restarts > max_crashes:
            sentence, code = f"its worker was lost {worker.restarts} times", "worker-crashed"
        else:
            sentence, code = disagreement(found, limits), "shadow-disagreement"
        if sentence:
            name = f"{worker.release.manifest.model} {worker.release.manifest.version}"
            raise ShadowRefusedError(f"{name}: in the shadow run {sentence}", code, found.numbers())
        self._diary.tell("shadowing", "shadow-agreement", found.sentence(), **found.numbers())

    def _on_progress(self, reached: Progress | Reached) -> None:
        if isinstance(reached, Reached) and reached.step in _REACHED:
            self._diary.step(_REACHED[reached.step])


class ShadowRefusedError(ShoalError):
    """The candidate does not do as the active release does; with the agreement's numbers."""

    code = "shadow-disagreement"

    def __init__(self, sentence: str, code: str, numbers: dict[str, float]) -> None:
        super().__init__(sentence, code=code)
        self.numbers = numbers


def shadow_limits(author: Shadow, assignment: Assignment) -> Shadow:
    """The author's shadow run, with what the operator asks for instead."""
    rows, seconds = assignment.shadow_rows, assignment.shadow_seconds
    rows = author.rows if rows is None else max(rows, 0)
    return Shadow(
        rows=rows,
        seconds=author.seconds if seconds is None else max(seconds, 0.0),
        min_rows=min(author.min_rows, rows) if rows else author.min_rows,
        min_label_agreement=author.min_label_agreement,
        max_mean_difference=author.max_mean_difference,
    )
