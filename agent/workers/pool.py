"""The pool: makes workers, replaces dead and hanging ones, retries the batch under way once.

A request that misses its deadline gets its worker SIGKILLed: nothing less ends a hung native
call. A batch that takes two workers down is not tried again as it is: the pipeline asks its rows
one by one (`infer_alone`), and what still kills is set aside, so that one poisoned row cannot stop
the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.crashloop import backoff_seconds
from agent.introspect import prefers_c_library
from agent.ports import (
    GoldenReport,
    LoadRefusedError,
    RuntimeFacts,
    StagedRelease,
    WorkerIncident,
)
from agent.workers import frames
from agent.workers.forkserver_client import Forkserver, ForkserverError
from agent.workers.frames import InferAnswer, InferRequest, Kind
from agent.workers.limits import allowance
from agent.workers.link import Link, NotBegunError, Sent
from agent.workers.oom import OomCounter
from agent.workers.quarantine import Quarantine
from shoal.errors import ShoalError
from shoal.protocol.messages import FieldStatistics


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Limits of all workers."""

    num_threads: int = 1
    load_timeout_seconds: float = 30.0
    golden_timeout_seconds: float = 60.0
    min_deadline_ms: float = 100.0
    memory_mb: int = 0
    """What a worker may take on top of the forkserver; 0: by the model's estimated need."""
    quarantine: Quarantine | None = None
    """Where windows go that took two workers down."""


LOAD_CODES = {"deadline-missed": "load-timeout", "worker-memory": "worker-memory"}
"""Of a worker lost while loading; any other is `worker-crashed`."""


class WorkerLostError(ShoalError):
    """The process died (`worker-crashed`), ran out of memory (`worker-memory`) or missed its
    deadline (`deadline-missed`)."""

    code = "worker-crashed"


class BatchFailedError(ShoalError):
    """A batch was given up; the worker is fresh again or gone."""

    code = "worker-crashed"


class QuarantinedError(BatchFailedError):
    """Rows that cost workers; `lost_code` says how the last one was lost."""

    code = "quarantined"

    def __init__(self, lost: ShoalError) -> None:
        super().__init__(lost.sentence)
        self.lost_code = lost.code


@dataclass(frozen=True, slots=True)
class StatisticsTaken:
    """Statistics of the rows that the current process has seen since the last call."""

    rows: int
    lost: int
    features: list[FieldStatistics]
    outputs: list[FieldStatistics]


class _Taken(msgspec.Struct):
    rows: int
    features: list[FieldStatistics]
    outputs: list[FieldStatistics]


class ForkserverPool:
    """`agent.ports.WorkerPool`; the forkserver starts with the first load and is replaced if
    it dies."""

    def __init__(self, options: PoolOptions | None = None) -> None:
        self.options = options or PoolOptions()
        self._server: Forkserver | None = None
        self._starting = asyncio.Lock()
        self.out_of_memory = OomCounter()
        self.workers: set[Worker] = set()
        """Those that are loaded."""

    async def load(self, release: StagedRelease, estimated_bytes: int = 0) -> Worker:
        """Return a worker with the release in it, or raise `LoadRefusedError`."""
        worker = Worker(self, release, allowance(estimated_bytes, self.options.memory_mb))
        try:
            await worker.start()
        except (WorkerLostError, ForkserverError) as error:
            code = LOAD_CODES.get(error.code, "worker-crashed")
            raise LoadRefusedError(
                f"{release.manifest.model} {release.manifest.version}: {error.sentence}", code=code
            ) from error
        self.workers.add(worker)
        return worker

    async def stop(self) -> None:
        """End all workers and the forkserver."""
        for worker in list(self.workers):
            await worker.close()
        if self._server is not None:
            await self._server.stop()
            self._server = None

    def pids(self) -> list[int]:
        """Process ids of the forkserver and all workers."""
        server = [self._server.pid] if self._server is not None and self._server.alive else []
        return server + [worker.pid for worker in self.workers if worker.pid]

    async def server(self) -> Forkserver:
        """The running forkserver."""
        async with self._starting:
            if self._server is None or not self._server.alive:
                if self._server is not None:
                    await self._server.stop()
                self._server = await Forkserver.start(lean=prefers_c_library())
            return self._server

    def forget(self, worker: Worker) -> None:
        """Called by a worker that closes."""
        self.workers.discard(worker)


class Worker:
    """`agent.ports.LoadedModel`: one model, whichever process holds it at the moment."""

    def __init__(self, pool: ForkserverPool, release: StagedRelease, memory_bytes: int) -> None:
        self._pool = pool
        self._memory_bytes = memory_bytes
        self._losses = 0
        """In a row, without an answer in between."""
        self._not_before = 0.0
        self._release = release
        self._link: Link | None = None
        self._facts = RuntimeFacts("", "", "")
        self._p99_ms = 0.0
        self._uncounted = 0
        self._lost = 0
        self._untold: WorkerLostError | None = None
        """A loss that nobody was told of yet: golden samples may be under way between batches."""
        self.labels: list[str] = []
        self.restarts = 0
        self.on_incident: Callable[[WorkerIncident], None] = lambda incident: None

    @property
    def release(self) -> StagedRelease:
        """What it runs."""
        return self._release

    @property
    def facts(self) -> RuntimeFacts:
        """What runs it."""
        return self._facts

    @property
    def pid(self) -> int:
        """Process id now; 0 while there is none."""
        return self._link.pid if self._link else 0

    @property
    def waiting(self) -> int:
        """Requests under way: the one that it has, and those behind."""
        return self._link.waiting if self._link else 0

    async def start(self) -> None:
        """Clone a process and load the model in it."""
        server = await self._pool.server()
        self._link = await Link.open(server, await server.fork())
        order = {
            "folder": str(self._release.folder),
            "manifest_sha256": self._release.manifest_sha256,
            "variant": self._release.variant.name,
            "num_threads": self._pool.options.num_threads,
            "memory_bytes": self._memory_bytes,
        }
        try:
            told = await self._ask_json(
                Kind.LOAD, msgspec.json.encode(order), self._pool.options.load_timeout_seconds
            )
        except LoadRefusedError:
            await self.close()
            raise
        self._facts = RuntimeFacts(told["runtime"], told["version"], told["kernels"])
        self.labels = told["labels"]

    async def warm_up(self) -> None:
        """Run the model a few times; the slowest run sets the deadline until golden samples do."""
        name = f"{self._release.manifest.model} {self._release.manifest.version}"
        try:
            told = await self._ask_json(Kind.WARM_UP, b"", self._pool.options.load_timeout_seconds)
        except WorkerLostError as error:
            await self.close()
            raise LoadRefusedError(f"{name}: {error.sentence}", code=error.code) from error
        except LoadRefusedError:
            await self.close()
            raise
        self._p99_ms = float(told["latency_p99_ms"])

    async def golden(self) -> GoldenReport:
        """Run the golden samples; their latency sets the deadline."""
        name = f"{self._release.manifest.model} {self._release.manifest.version}"
        try:
            told = await self._ask_json(Kind.GOLDEN, b"", self._pool.options.golden_timeout_seconds)
        except WorkerLostError as error:
            raise LoadRefusedError(
                f"{name}: golden samples: {error.sentence}", code=error.code
            ) from error
        p99 = float(told["latency_p99_ms"])
        self._p99_ms = max(p99, self._p99_ms)
        worst, samples = float(told["worst"]), int(told["samples"])
        passed = worst <= 1.0
        sentence = (
            f"{name}: {samples} golden samples, worst difference {worst:.2f} of the tolerance "
            f"for {self._facts.kernels} kernels"
        )
        return GoldenReport(passed, samples, worst, p99, sentence)

    async def infer(self, request: InferRequest) -> InferAnswer:
        """Run one batch as `try_infer` does; set it aside when it takes two workers down."""
        try:
            return await self.try_infer(request)
        except QuarantinedError as error:
            self.set_aside(request, error)
            raise

    def send(self, request: InferRequest) -> Sent | None:
        """Have a batch follow the one under way; `try_infer` waits for it. None: no process."""
        link = self._link
        if link is None:
            return None
        seconds = deadline_seconds(
            self._release.manifest.deadline_ms,
            self._pool.options.min_deadline_ms,
            self._p99_ms,
            request.fresh,
        )
        return link.infer(request, seconds)

    async def try_infer(self, request: InferRequest, sent: Sent | None = None) -> InferAnswer:
        """Run one batch, or wait for one that was `sent`; on a lost worker try it once more on a
        fresh one.

        Raises `QuarantinedError` after the second loss, or `BatchFailedError`: `worker-backoff`
        while a worker that keeps dying is not started again yet, or the code of a refusal to load.
        """
        for attempt in (1, 2):
            try:
                return await self._answer(request, self._restart, sent)
            except WorkerLostError as error:
                self._report(error, recovered=attempt == 1)
                lost: ShoalError = error
                sent = None
            except (LoadRefusedError, ForkserverError) as error:
                self._report(error, recovered=False)
                raise BatchFailedError(error.sentence, code=error.code) from error
        raise QuarantinedError(lost) from lost

    async def infer_alone(self, request: InferRequest) -> InferAnswer:
        """Run a part of a batch that took two workers down: once, on a worker made at once.

        A loss is told by `set_aside` alone: the batch is held against the release already.
        """
        try:
            return await self._answer(request, self._start_again)
        except WorkerLostError as error:
            self._untold = None
            raise QuarantinedError(error) from error
        except (LoadRefusedError, ForkserverError) as error:
            raise BatchFailedError(error.sentence, code=error.code) from error

    async def _answer(
        self,
        request: InferRequest,
        start: Callable[[], Awaitable[None]],
        sent: Sent | None = None,
    ) -> InferAnswer:
        """One request to a process, which `start` makes where there is none."""
        while True:
            if sent is None and self._link is None:
                if self._untold is not None:
                    self._report(self._untold, recovered=True)
                await start()
            sent = sent or self.send(request)
            assert sent is not None
            try:
                data = await self._receive(sent, Kind.INFER, Kind.ANSWER)
            except NotBegunError:  # it is another request that took the process down
                sent = None
                continue
            self._uncounted += request.fresh
            self._losses, self._not_before = 0, 0.0
            return frames.decode_answer(data)

    def set_aside(self, request: InferRequest, error: QuarantinedError) -> None:
        """Keep rows that cost workers for people, and say so."""
        quarantine = self._pool.options.quarantine
        path = (
            quarantine.keep(self._release, request, error.lost_code, error.sentence)
            if quarantine
            else None
        )
        kept = f"kept as {path.name}" if path else "not kept"
        rows = "1 row" if request.fresh == 1 else f"{request.fresh} rows"
        self._tell(error.code, f"{rows} took workers down ({error.sentence}), {kept}", False)

    async def take_statistics(self) -> StatisticsTaken:
        """Statistics since the last call; rows of processes lost since then are `lost`."""
        taken = _Taken(0, [], [])
        if self._link is not None and self._uncounted:
            try:
                data = await self._ask(Kind.STATISTICS, b"", Kind.INFO, 10.0)
                taken = msgspec.json.decode(data, type=_Taken)
            except WorkerLostError as error:
                self._report(error, recovered=True)
        lost, self._lost, self._uncounted = self._lost, 0, 0
        return StatisticsTaken(taken.rows, lost, taken.features, taken.outputs)

    async def close(self) -> None:
        """End the process."""
        link, self._link = self._link, None
        self._pool.forget(self)
        if link is not None:
            await link.close()

    async def _restart(self) -> None:
        left = self._not_before - time.monotonic()
        if left > 0:
            raise BatchFailedError(
                f"worker: lost {self._losses} times in a row, started again in {left:.1f} s",
                code="worker-backoff",
            )
        await self._start_again()

    async def _start_again(self) -> None:
        self.restarts += 1
        await self.start()

    def _forget_uncounted(self) -> None:
        """What a lost process has answered is in no statistics."""
        self._lost += self._uncounted
        self._uncounted = 0

    def _report(self, error: ShoalError, *, recovered: bool) -> None:
        self._untold = None
        self._losses += 1
        self._not_before = time.monotonic() + backoff_seconds(self._losses)
        self._tell(error.code, error.sentence, recovered)

    def _tell(self, code: str, sentence: str, recovered: bool) -> None:
        manifest = self._release.manifest
        words = f"{manifest.model} {manifest.version}: {sentence}"
        self.on_incident(WorkerIncident(manifest.model, manifest.version, code, words, recovered))

    async def _ask_json(self, kind: Kind, payload: bytes, seconds: float) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(
            await self._ask(kind, payload, Kind.INFO, seconds)
        )
        return found

    async def _ask(self, kind: Kind, payload: bytes, wanted: Kind, seconds: float) -> bytes:
        """One request and its answer; a lost worker leaves `_link` None."""
        link = self._link
        if link is None:
            raise WorkerLostError("worker: not running")
        try:
            sent = link.send(frames.encode(kind, payload), seconds)
            return await self._receive(sent, kind, wanted)
        except NotBegunError as error:
            raise WorkerLostError(f"worker {link.pid}: lost before {kind.name}") from error

    async def _receive(self, sent: Sent, kind: Kind, wanted: Kind) -> bytes:
        """The answer to a request, or `WorkerLostError`, `LoadRefusedError`, `NotBegunError`."""
        try:
            return await self._received(sent, kind, wanted)
        except NotBegunError:
            await self._lose(sent.link)
            raise
        except WorkerLostError as error:
            self._untold = error
            raise

    async def _received(self, sent: Sent, kind: Kind, wanted: Kind) -> bytes:
        link = sent.link
        try:
            got, data = await sent.answer
        except TimeoutError as error:
            await self._lose(link)
            raise WorkerLostError(
                f"worker {link.pid}: no answer within {sent.seconds * 1e3:.0f} ms, killed",
                code="deadline-missed",
            ) from error
        except (OSError, frames.FrameError) as error:
            code, ended = await self._lose(link)
            raise WorkerLostError(f"worker {link.pid}: {ended}", code=code) from error
        if got is Kind.ERROR:
            code, sentence = msgspec.json.decode(data)
            if code == "worker-memory":  # it may be anything by now: a fresh one is better
                await self._lose(link)
                raise WorkerLostError(f"worker {link.pid}: {sentence}", code=code)
            raise LoadRefusedError(sentence, code=code)
        if got is not wanted:
            await self._lose(link)
            raise WorkerLostError(f"worker {link.pid}: answered {got.name} to {kind.name}")
        return data

    async def _lose(self, link: Link) -> tuple[str, str]:
        """Be without the process behind `link`, if it is still ours; how it ended."""
        if self._link is link:
            self._link = None
            self._forget_uncounted()
        return await link.close(self._pool.out_of_memory)


def deadline_seconds(stated_ms: float, least_ms: float, p99_ms: float, rows: int) -> float:
    """How long a request of `rows` rows may take: as the manifest states for 32 rows, else ten
    times the 99th percentile a row on this device, and never below the least."""
    batches = max(rows / 32, 1)
    if stated_ms:
        return stated_ms * batches / 1e3
    return max(10 * p99_ms * rows, least_ms * batches) / 1e3
