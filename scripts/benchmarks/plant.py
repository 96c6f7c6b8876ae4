"""A running pipeline with the agent's own parts around it, put together as `agent.app` does.

A `tensor-file` source, the pipeline, a worker process of the pool, predictions and windows into a
real outbox on disk. No broker: what is measured ends at the outbox.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.actions.batcher import PredictionBatcher
from agent.clock import Clock
from agent.config import OutboxLimits
from agent.pipeline import WorkerPipeline
from agent.ports import Action, Answers, Samples, StagedRelease, WindowReport
from agent.prepare import prepare_state
from agent.reporter import Identity, Reporter
from agent.sources.tensor_file import TensorFileSource
from agent.spool import Spool
from agent.workers.frames import InferAnswer, InferRequest
from agent.workers.link import Sent
from agent.workers.pool import ForkserverPool, PoolOptions, Worker
from benchmarks.models import stage, write_rows
from shoal.ids import DeviceId, SiteId
from shoal.package import Package

ROWS = 256
ANSWER_SECONDS = 120.0
WINDOW_SECONDS = 1.0
DEADLINE_MS = 5000.0
"""So long that a busy machine does not look like a hung worker."""


@dataclass(slots=True)
class Probe:
    """The pipeline's last action: counts answers and notes when they came."""

    rows: int = 0
    left_at: list[float] = field(default_factory=list)
    """When each batch left the source."""
    answered_at: list[float] = field(default_factory=list)
    invoked_seconds: list[float] = field(default_factory=list)
    """What the runtime took for each, as the worker measured it."""
    keep_times: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, answers: Answers) -> None:
        """Take the answers of one batch."""
        if self.keep_times:
            self.answered_at.append(time.perf_counter())
        self.rows += len(answers.times_ms)
        self.news.set()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing follows."""

    async def answered(self, rows: int) -> None:
        """Wait until so many rows are answered."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while self.rows < rows:
                self.news.clear()
                await self.news.wait()

    def watch(self, worker: Worker) -> None:
        """Note what the runtime takes for each batch of this worker."""
        infer = worker.try_infer

        async def noted(request: InferRequest, sent: Sent | None = None) -> InferAnswer:
            answer = await infer(request, sent)
            self.invoked_seconds.append(answer.invoke_ns / 1e9)
            return answer

        worker.try_infer = noted  # type: ignore[method-assign] # this worker only, to look inside


class StampedSource:
    """Notes when each batch leaves the real source."""

    def __init__(self, source: TensorFileSource, probe: Probe) -> None:
        self._source, self._probe = source, probe
        self.select = source.select
        self.take_dropped = source.take_dropped
        self.live = source.live
        self.sent = 0
        self.ended = False
        """Set to end it before the next batch."""

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Pass on what the source yields."""
        async for samples in self._source.batches():
            if self.ended:
                return
            self.sent += len(samples.times_ms)
            if self._probe.keep_times:
                self._probe.left_at.append(time.perf_counter())
            yield samples


@dataclass(slots=True)
class Plant:
    """What a benchmark may touch while the pipeline runs."""

    pool: ForkserverPool
    pipeline: WorkerPipeline
    source: StampedSource
    probe: Probe
    reporter: Reporter
    release: StagedRelease
    worker: Worker
    reports: list[WindowReport] = field(default_factory=list)

    async def close_window(self) -> None:
        """Close the window and store it for sending."""
        for report in await self.pipeline.take_reports():
            self.reports.append(report)
            self.reporter.window(report, slot="active", baseline="", pss_bytes=0)

    async def close_windows(self) -> None:
        """Close a window a second, for ever."""
        while True:
            await asyncio.sleep(WINDOW_SECONDS)
            await self.close_window()


@asynccontextmanager
async def running_plant(
    make: Callable[[Path], Package], rate_hz: float = 0.0, *, keep_times: bool = False
) -> AsyncIterator[Plant]:
    """Run `make`'s model over random rows, again and again, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as text:
        folder = Path(text)
        package = make(folder)
        probe = Probe(keep_times=keep_times)
        rows = write_rows(package, folder, ROWS)
        source = StampedSource(TensorFileSource(str(rows), rate_hz, loop=True), probe)
        prepare_state(folder)
        outbox, reporter = _outbox(folder)
        actions: list[Action] = [PredictionBatcher(reporter.predictions), probe]
        pipeline = WorkerPipeline(package.manifest.model, source, actions)
        pool = ForkserverPool(PoolOptions(min_deadline_ms=DEADLINE_MS))
        try:
            release = stage(package, folder)
            worker = await pool.load(release)
            await pipeline.swap(worker)
            plant = Plant(pool, pipeline, source, probe, reporter, release, worker)
            async with _running(plant):
                yield plant
        finally:
            await pool.stop()
            outbox.close()


def _outbox(folder: Path) -> tuple[Spool, Reporter]:
    identity = Identity(DeviceId("bench-1"), SiteId("bench"), "", {})
    outbox = Spool(folder / "outbox.sqlite", identity.boot_id, OutboxLimits())
    return outbox, Reporter(identity, outbox, Clock(), lambda: None)


@asynccontextmanager
async def _running(plant: Plant) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(plant.pipeline.run(), name="pipeline"),
        asyncio.create_task(plant.close_windows(), name="windows"),
    ]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()  # neither ends by itself
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
