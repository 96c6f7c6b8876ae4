"""The pipeline of one model name: source → buffer → micro-batch → worker → actions, and its
accounts.

A reader fills the buffer, and the answers before are passed on, while the worker answers. One
micro-batch is under way at a time. A lock
around it is the only synchronisation: a swap and the closing of a window take place between two
batches, so no row is lost and no report mixes two releases. Rows that wait at a swap to a release
with other features are answered by the release they were read for.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from agent.pipeline import accounting, windowing
from agent.pipeline.accounting import Account
from agent.pipeline.buffer import Buffer, Policy, cut
from agent.pipeline.conditioning import AgeLimits, Conditioner, conditions_of, plan_conversions
from agent.ports import (
    Action,
    Answers,
    LoadRefusedError,
    Samples,
    Source,
    StagedRelease,
    WindowReport,
    WorkerIncident,
)
from agent.workers import frames
from agent.workers.frames import InferAnswer, InferRequest
from agent.workers.pool import BatchFailedError, Worker
from shoal.protocol.manifest import Contract, Manifest
from shoal.units import UnitMismatchError

BATCH_ROWS = 64
"""Rows of a micro-batch at most, unless the model is fast."""
MAX_BATCH_ROWS = 256
BATCH_US = 10_000
"""What more rows than `BATCH_ROWS` may take together: a swap waits for them."""
BATCH_BYTES = 512 * 1024
"""What they may weigh: the event loop copies them at once."""
BUFFER_ROWS = 1024
_T = TypeVar("_T")


class Watcher(Protocol):
    """What a recorder of captures looks like from here."""

    def wants(self, release: StagedRelease) -> bool: ...
    def see(
        self,
        release: StagedRelease,
        answer: InferAnswer,
        labels: list[str],
        rows: bytes,
        times_ms: list[int],
        carried: int,
    ) -> None: ...
    def disagreed(
        self,
        release: StagedRelease,
        request: InferRequest,
        answer: InferAnswer,
        labels: list[str],
        indices: Iterable[int],
    ) -> None: ...


class WorkerPipeline:
    """`agent.ports.Pipeline` over workers of the pool."""

    def __init__(
        self,
        model: str,
        source: Source,
        actions: list[Action],
        on_incident: Callable[[WorkerIncident], None] = lambda incident: None,
        now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        *,
        overload: Policy | None = None,
        buffer_rows: int = BUFFER_ROWS,
        max_batch_rows: int = MAX_BATCH_ROWS,
        units: Mapping[str, str] | None = None,
        age_limits: AgeLimits | None = None,
    ) -> None:
        self._model = model
        self._source = source
        self._actions = list(actions)
        self.on_incident = on_incident
        self._buffer = Buffer(buffer_rows, overload or ("newest" if source.live else "wait"))
        self.beside: Callable[[InferRequest, InferAnswer, list[str], float], None] | None = None
        """Gets each answered batch too, with the words of its labels and the µs it took."""
        self.recorder: Watcher | None = None
        """Sees every answered batch with its rows, and keeps what is worth it."""
        self._units = units or {}
        self._age_limits = age_limits
        self._conditioner: Conditioner | None = None
        self._conditions: object = None
        self.made = 0
        """Rows in the accounts that no source gave: resampling to a higher rate made them."""
        self._lock = asyncio.Lock()
        self._ready = asyncio.Event()
        self._worker: Worker | None = None
        self._reading: list[str] = []
        self._taking: list[str] = []
        self._account = Account()
        self._carried = b""
        self._batch_rows = BATCH_ROWS
        self._max_batch_rows = max_batch_rows
        self._unsaid: Callable[[], None] | None = None
        self._restarts_before = 0
        self._closed: list[WindowReport] = []
        self._now_ms = now_ms
        self._start_ms = now_ms()

    async def run(self) -> None:
        """Wait for the first model, then feed it rows until the source ends."""
        await self._ready.wait()
        self._buffer.open()
        reader = asyncio.create_task(self._read(), name=f"source-{self._model}")
        try:
            while await self._buffer.wait():
                async with self._lock:
                    if (taken := self._buffer.take(self._batch_rows)) is not None:
                        await _finish(self._feed(*taken))
            await reader
            async with self._lock:
                await _finish(self._feed_rest())
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reader  # what went wrong in it was raised above
            self._say()
            self._account.drop(accounting.STOPPED, self._buffer.clear())
            self._abandon()

    def add_action(self, action: Action) -> None:
        """Have this done with answers too."""
        self._actions.append(action)

    def check(self, manifest: Manifest) -> None:
        """Raise `LoadRefusedError` where this device cannot give a release what it needs."""
        try:
            plan_conversions(manifest.contract, self._units)
        except UnitMismatchError as error:
            raise LoadRefusedError(
                f"{manifest.model} {manifest.version}: {error.sentence}", code=error.code
            ) from error

    @property
    def worker(self) -> Worker | None:
        """What answers now."""
        return self._worker

    async def ask(self, worker: Worker, rows: int, values: bytes) -> InferAnswer:
        """Answer rows that did not come from the source, between two micro-batches.

        They are whole windows in the contract's units, and counted as the source's rows are.
        Raises `BatchFailedError`, or `LookupError` where another worker answers by now.
        """
        async with self._lock:
            if worker is not self._worker:
                raise LookupError(self._model)
            width = len(_features(worker))
            answer, _ = await _finish(self._exchange(worker, rows, width, values))
            return answer

    async def _read(self) -> None:
        """Fill the buffer until the source ends."""
        try:
            async with contextlib.aclosing(self._source.batches()) as batches:
                async for samples in batches:
                    await self._buffer.put(self._reading, samples)
        finally:
            self._buffer.close()

    async def swap(self, loaded: Worker | None) -> Worker | None:
        """Put `loaded` in place between two micro-batches; return what was there."""
        async with self._lock:
            if loaded is not None:
                await self._select(_features(loaded))
                self._condition_for(loaded.release.manifest.contract)
            await self._close_window()
            before, self._worker = self._worker, loaded
            if before is None:
                self._start_ms = self._now_ms()
            if loaded is not None:
                if before is None or _shape(loaded) != _shape(before):
                    self._carried = b""
                loaded.on_incident = self.on_incident
                self._restarts_before = loaded.restarts
                self._ready.set()
            return before

    async def take_reports(self) -> list[WindowReport]:
        """Close the window and return every closed one not taken yet."""
        async with self._lock:
            await self._close_window()
        reports, self._closed = self._closed, []
        return reports

    async def _select(self, features: list[str]) -> None:
        """Read for other features; what waits and lacks one is still answered as it was read."""
        before = self._taking
        if features == before:
            return
        self._reading = features
        self._source.select(features)
        if not set(features) <= set(before):
            while self._buffer.oldest_names is before:
                taken = self._buffer.take(self._batch_rows)
                assert taken is not None
                await _finish(self._feed(*taken))
        self._taking = features

    async def _feed(self, names: list[str], samples: Samples) -> None:
        """Settle every row of one micro-batch, read for the features `names`."""
        self._drop_unread(self._account)
        worker, rows = self._worker, len(samples.times_ms)
        if worker is None:
            self._account.drop(accounting.NO_MODEL, rows)
            await asyncio.sleep(0)  # a source at full speed must not starve the loop
            return
        contract = worker.release.manifest.contract
        if names is not self._taking and set(self._taking) <= set(names):
            samples = _reordered(samples, names, self._taking)
            names = self._taking
        assert self._conditioner is not None
        if samples.width != len(contract.features) or names is not self._taking:
            self._account.drop(accounting.WRONG_WIDTH, rows)
            return
        for stretch in self._conditioner.push(samples, time.time_ns() // 1_000_000):
            if stretch.anew:
                self._carried = b""
            await self._infer(worker, stretch.samples)
        self._count_conditioned()

    async def _feed_rest(self) -> None:
        """The source has ended: answer what resampling holds back."""
        rest = self._conditioner.finish() if self._conditioner is not None else None
        if rest is not None and self._worker is not None:
            await self._infer(self._worker, rest)
        elif rest is not None:
            self._account.drop(accounting.NO_MODEL, len(rest.times_ms))
        self._count_conditioned()

    async def _infer(self, worker: Worker, samples: Samples) -> None:
        """Answer rows that are ready, and carry on what later windows need."""
        contract = worker.release.manifest.contract
        row_bytes = samples.width * 4
        most = self._batch_rows
        for start in range(0, len(samples.times_ms), most):
            part = cut(samples, start, start + most)
            rows, carried = len(part.times_ms), len(self._carried) // row_bytes
            try:
                answer, latency_us = await self._exchange(
                    worker, rows, part.width, self._carried + part.values, carried
                )
            except BatchFailedError:
                self._carried, self._batch_rows = b"", BATCH_ROWS
                continue
            self._batch_rows = min(fitting_rows(rows, latency_us, row_bytes), self._max_batch_rows)
            kept, times = _usable(part, answer)
            self._unsaid = partial(self._act, worker, answer, times, carried)
            if not self._buffer.rows:  # nothing to ask meanwhile
                self._say()
            recorder = self.recorder
            if recorder is not None and answer.windows and recorder.wants(worker.release):
                seen = self._carried + kept
                recorder.see(worker.release, answer, worker.labels, seen, times, carried)
            if contract.window_rows > 1:
                rows_seen = carried + len(times)
                skip = windowing.carry_from(rows_seen, contract.window_rows, contract.stride_rows)
                self._carried = (self._carried + kept)[skip * row_bytes :]

    async def _exchange(
        self, worker: Worker, rows: int, width: int, values: bytes, carried: int = 0
    ) -> tuple[InferAnswer, float]:
        """One micro-batch to the worker and back, settled: the answer, and µs that it took."""
        request = InferRequest(carried, rows, width, values)
        start = time.perf_counter_ns()
        asked = asyncio.ensure_future(worker.infer(request))
        if self._unsaid is not None:
            await asyncio.sleep(0)  # the request goes out first
            self._say()
        try:
            answer = await asked
        except BatchFailedError as error:
            self._account.fail(error.code, rows)
            raise
        latency_us = (time.perf_counter_ns() - start) / 1e3
        self._settle(answer, rows, latency_us)
        if self.beside is not None:
            self.beside(request, answer, worker.labels, latency_us)
        self._account.labels.update(worker.labels[index] for index in answer.labels)
        return answer, latency_us

    def _condition_for(self, contract: Contract) -> None:
        """Keep what the conditioning holds where the next release asks for the same."""
        wanted = conditions_of(contract)
        if self._conditions != wanted:
            self._abandon()
            self._conditions = wanted
            self._conditioner = Conditioner(contract, self._units, self._age_limits)

    def _abandon(self) -> None:
        if self._conditioner is not None:
            self._conditioner.abandon()
        self._count_conditioned()

    def _count_conditioned(self) -> None:
        """Settle rows that conditioning dropped or merged, and count those it made."""
        if self._conditioner is not None:
            for reason, rows in self._conditioner.take_dropped().items():
                self._account.drop(reason, rows)
            self.made += self._conditioner.take_made()

    def _drop_unread(self, account: Account) -> None:
        """Settle what the source could not use and what found no room."""
        for reason, rows in self._source.take_dropped().items():
            account.drop(reason, rows)
        account.drop(accounting.OVERLOAD, self._buffer.take_overload())

    def _settle(self, answer: InferAnswer, rows: int, latency_us: float) -> None:
        missing = answer.rows.count(frames.MISSING)
        broken = answer.rows.count(frames.NON_FINITE)
        self._account.drop(accounting.MISSING, missing)
        self._account.fail(accounting.NON_FINITE_OUTPUT, broken)
        self._account.succeed(rows - missing - broken, latency_us)
        self._account.out_of_range += answer.out_of_range

    def _say(self) -> None:
        """Pass on the answers of the batch before, if that is still to do."""
        said, self._unsaid = self._unsaid, None
        if said is not None:
            said()

    def _act(self, worker: Worker, answer: InferAnswer, times: list[int], carried: int) -> None:
        if not answer.windows:
            return
        if not self._actions:
            return
        labels = [worker.labels[index] for index in answer.labels]
        manifest = worker.release.manifest
        contract = manifest.contract
        last = windowing.last_rows(answer.windows, contract.window_rows, contract.stride_rows)
        flat = array.array("f", answer.values).tolist()
        width = answer.outputs
        answers = Answers(
            model=self._model,
            version=manifest.version,
            release_sequence=manifest.sequence,
            names=[output.name for output in contract.outputs],
            times_ms=[times[index - carried] for index in last],
            values=[flat[i : i + width] for i in range(0, len(flat), width)],
            labels=labels,
        )
        for action in self._actions:
            action(answers)

    async def _close_window(self) -> None:
        """Turn the account into a report, with the statistics of the worker in place."""
        self._say()
        for action in self._actions:
            action.flush()
        account, self._account = self._account, Account()
        start_ms, self._start_ms = self._start_ms, self._now_ms()
        self._drop_unread(account)
        worker = self._worker
        if worker is None:  # nothing is loaded: keep the count for the next window
            self._account = account
            return
        taken = await worker.take_statistics()
        restarts, self._restarts_before = (
            worker.restarts - self._restarts_before,
            worker.restarts,
        )
        if not (account.in_count or taken.rows or taken.lost or restarts):
            return
        self._closed.append(
            WindowReport(
                release=worker.release,
                facts=worker.facts,
                start_ms=start_ms,
                end_ms=self._start_ms,
                in_count=account.in_count,
                ok=account.ok,
                dropped=dict(account.dropped),
                failed=dict(account.failed),
                latency_counts=account.latency_counts,
                latency_max_us=account.latency_max_us,
                worker_restarts=restarts,
                labels=dict(account.labels),
                out_of_range=account.out_of_range,
                features=taken.features,
                outputs=taken.outputs,
                statistics_rows=taken.rows,
                statistics_lost=taken.lost,
            )
        )


def fitting_rows(rows: int, latency_us: float, row_bytes: int) -> int:
    """Rows of the next micro-batch at most, by what this one took and by their size. Pure.

    >>> fitting_rows(64, 640.0, 40), fitting_rows(128, 4000.0, 12_288), fitting_rows(256, 5e5, 40)
    (256, 64, 64)
    """
    quick = int(rows * BATCH_US / max(latency_us, 1.0))
    return max(min(quick, MAX_BATCH_ROWS, BATCH_BYTES // row_bytes), BATCH_ROWS)


def _features(worker: Worker) -> list[str]:
    return [one.name for one in worker.release.manifest.contract.features]


def _shape(worker: Worker) -> tuple[list[str], int, int]:
    """What two releases must share for one to go on with the other's carried rows."""
    contract = worker.release.manifest.contract
    return _features(worker), contract.window_rows, contract.stride_rows


async def _finish(batch: Coroutine[None, None, _T]) -> _T:
    """Settle the batch in hand even when cancelled: half an exchange would break the next one."""
    task = asyncio.ensure_future(batch)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(BatchFailedError):
            await task
        raise


def _reordered(samples: Samples, names: list[str], wanted: list[str]) -> Samples:
    """The columns `wanted` of rows that were read for `names`."""
    if samples.width != len(names):
        return samples
    values = array.array("f", samples.values)
    picked = array.array("f", bytes(4 * len(wanted) * len(samples.times_ms)))
    for at, name in enumerate(wanted):
        picked[at :: len(wanted)] = values[names.index(name) :: len(names)]
    return Samples(samples.times_ms, picked.tobytes(), len(wanted))


def _usable(samples: Samples, answer: InferAnswer) -> tuple[bytes, list[int]]:
    """The rows that reached the model: their bytes and times."""
    if frames.MISSING not in answer.rows:
        return samples.values, samples.times_ms
    row = samples.width * 4
    keep = [i for i, status in enumerate(answer.rows) if status != frames.MISSING]
    kept = b"".join(samples.values[i * row : (i + 1) * row] for i in keep)
    return kept, [samples.times_ms[i] for i in keep]
