"""The pipeline of one model name: source → buffer → micro-batch → worker → actions, and its
accounts.

A reader fills the buffer, and the answers before are passed on, while the worker answers. Of quick
models two micro-batches are under way, so that the worker finds the next where it ends one; they
are settled in their order. A lock is the only synchronisation: a swap and the closing of a window
hold it, and settle what is under way first, so no row is lost and no report mixes two releases.
Rows that wait at a swap to a release with other features are answered by the release they were
read for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agent.pipeline import accounting, windowing
from agent.pipeline.accounting import Account
from agent.pipeline.batches import (
    BATCH_BYTES,
    BATCH_ROWS,
    BATCH_US,
    MAX_BATCH_ROWS,
    features_of,
    fitting_rows,
    reordered,
    shape_of,
    usable,
)
from agent.pipeline.buffer import Buffer, Policy, cut
from agent.pipeline.conditioning import AgeLimits, Conditioner, conditions_of, plan_conversions
from agent.pipeline.exchange import Beside, Exchange, Watcher
from agent.pipeline.narrowing import ask_one_by_one, losses_allowed
from agent.pipeline.reports import report_of
from agent.ports import (
    Action,
    LoadRefusedError,
    Samples,
    Source,
    WindowReport,
    WorkerIncident,
)
from agent.workers.frames import InferAnswer, InferRequest
from agent.workers.link import Sent
from agent.workers.pool import BatchFailedError, QuarantinedError, Worker
from shoal.protocol.manifest import Contract, Manifest
from shoal.units import UnitMismatchError

BUFFER_ROWS = 1024
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A micro-batch that the worker has, or that waits behind the one it has."""

    worker: Worker
    part: Samples
    request: InferRequest
    sent: Sent | None
    began_ns: int


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
        batch_us: float = BATCH_US,
        units: Mapping[str, str] | None = None,
        age_limits: AgeLimits | None = None,
    ) -> None:
        self._model = model
        self._source = source
        self._exchange = Exchange(model, actions)
        self.on_incident = on_incident
        self._buffer = Buffer(buffer_rows, overload or ("newest" if source.live else "wait"))
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
        self._carried = b""
        self._under_way: deque[_UnderWay] = deque()
        self._answered_ns = 0
        self._is_quick = False
        self._batch_rows = BATCH_ROWS
        self._max_batch_rows = max_batch_rows
        self._batch_us = batch_us
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
                        await _finish(self._turn(*taken))
            await reader
            async with self._lock:
                await _finish(self._feed_rest())
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reader  # what went wrong in it was raised above
            await _finish(self._settle())
            self._account.drop(accounting.STOPPED, self._buffer.clear())
            self._abandon()

    def add_action(self, action: Action) -> None:
        """Have this done with answers too."""
        self._exchange.actions.append(action)

    def check(self, manifest: Manifest) -> None:
        """Raise `LoadRefusedError` where this device cannot give a release what it needs."""
        try:
            plan_conversions(manifest.contract, self._units)
        except UnitMismatchError as error:
            raise LoadRefusedError(
                f"{manifest.model} {manifest.version}: {error.sentence}", code=error.code
            ) from error

    @property
    def beside(self) -> Beside | None:
        """Who gets each answered batch too: a shadow run."""
        return self._exchange.beside

    @beside.setter
    def beside(self, beside: Beside | None) -> None:
        self._exchange.beside = beside

    @property
    def worker(self) -> Worker | None:
        """What answers now."""
        return self._worker

    async def ask(
        self, worker: Worker, parts: Sequence[bytes]
    ) -> list[InferAnswer | BatchFailedError]:
        """Answer rows that did not come from the source, between two micro-batches.

        Each part is whole windows in the contract's units; they go together, and are counted as
        the source's rows are. Raises `LookupError` where another worker answers by now.
        """
        async with self._lock:
            if worker is not self._worker:
                raise LookupError(self._model)
            await _finish(self._settle())
            return await _finish(self._exchange.ask_parts(worker, parts))

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
                contract = _contract(loaded)
                await self._select(features_of(contract))
                self._condition_for(contract)
            await self._close_window()
            before, self._worker = self._worker, loaded
            if before is None:
                self._start_ms = self._now_ms()
            if loaded is not None:
                if before is None or shape_of(contract) != shape_of(_contract(before)):
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

    async def _turn(self, names: list[str], samples: Samples) -> None:
        """Feed one micro-batch; where none follows, have its answer too."""
        await self._feed(names, samples)
        if not self._buffer.rows:
            await self._settle()

    async def _feed(self, names: list[str], samples: Samples) -> None:
        """Have every row of one micro-batch, read for the features `names`, asked or settled."""
        self._drop_unread(self._account)
        worker, rows = self._worker, len(samples.times_ms)
        if worker is None:
            self._account.drop(accounting.NO_MODEL, rows)
            await asyncio.sleep(0)  # a source at full speed must not starve the loop
            return
        contract = _contract(worker)
        if names is not self._taking and set(self._taking) <= set(names):
            samples = reordered(samples, names, self._taking)
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
        await self._settle()
        self._count_conditioned()

    async def _infer(self, worker: Worker, samples: Samples) -> None:
        """Ask for rows that are ready, a micro-batch at a time."""
        most = max(min(self._batch_rows, BATCH_BYTES // max(samples.width * 4, 1)), 1)
        # the rows carried by windows are known when the batch before is answered, not sooner
        alone = _contract(worker).window_rows > 1 or not self._is_quick
        for start in range(0, len(samples.times_ms), most):
            part = cut(samples, start, start + most)
            began_ns = time.perf_counter_ns()
            await self._settle_but(0 if alone else 1)
            request = self._request(part)
            self._under_way.append(_UnderWay(worker, part, request, worker.send(request), began_ns))
            self._exchange.say()
            if alone:
                await self._settle_but(0)

    async def _settle(self) -> None:
        """Settle all that is under way, and pass on its answers."""
        await self._settle_but(0)
        self._exchange.say()

    async def _settle_but(self, most: int) -> None:
        """Settle the oldest micro-batches until no more than `most` are under way."""
        while len(self._under_way) > most:
            await self._settle_one(self._under_way.popleft())

    async def _settle_one(self, batch: _UnderWay) -> None:
        worker, part = batch.worker, batch.part
        begun_ns = max(batch.began_ns, self._answered_ns)
        try:
            asked = worker.try_infer(batch.request, batch.sent)
            await self._answer(worker, part, batch.request, asked, batch.began_ns)
        except BatchFailedError as error:
            self._batch_rows, self._is_quick = BATCH_ROWS, False
            if isinstance(error, QuarantinedError) and len(part.times_ms) > 1:
                await self._narrow(worker, part, batch.began_ns)
            else:
                self._exchange.give_up(worker, batch.request, error)
                self._carried = b""
            return
        self._answered_ns = time.perf_counter_ns()
        own_us = (self._answered_ns - begun_ns) / 1e3
        fitting = fitting_rows(len(part.times_ms), own_us, part.width * 4, self._batch_us)
        self._batch_rows = min(fitting, self._max_batch_rows)
        self._is_quick = own_us < self._batch_us

    async def _narrow(self, worker: Worker, part: Samples, began_ns: int) -> None:
        """Answer the rows of a batch that took two workers down one by one."""
        contract = _contract(worker)

        async def ask(at: int) -> None:
            one = cut(part, at, at + 1)
            request = self._request(one)
            await self._answer(worker, one, request, worker.infer_alone(request), began_ns)

        def fail(start: int, stop: int, error: BatchFailedError) -> None:
            lost = cut(part, start, stop)
            self._exchange.give_up(worker, self._request(lost), error)
            if stop == start + 1:
                self._carry(contract, lost.values, lost.width)
            else:
                self._carried = b""

        allowed = losses_allowed(contract.window_rows, contract.stride_rows)
        await ask_one_by_one(len(part.times_ms), allowed, ask, fail)

    def _request(self, part: Samples) -> InferRequest:
        carried = len(self._carried) // (part.width * 4)
        rows = len(part.times_ms)
        return InferRequest(carried, rows, part.width, self._carried + part.values)

    async def _answer(
        self,
        worker: Worker,
        part: Samples,
        request: InferRequest,
        asked: Awaitable[InferAnswer],
        began_ns: int,
    ) -> None:
        """Settle rows that follow those carried, and carry on what later windows need."""
        answer, _ = await self._exchange.ask(worker, request, asked, began_ns)
        kept, times = usable(part, answer)
        self._exchange.say_later(worker, answer, times, request.carried)
        recorder = self.recorder
        if recorder is not None and answer.windows and recorder.wants(worker.release):
            seen = self._carried + kept
            recorder.see(worker.release, answer, worker.labels, seen, times, request.carried)
        self._carry(_contract(worker), kept, part.width)

    def _carry(self, contract: Contract, rows: bytes, width: int) -> None:
        """Keep what later windows need of the rows that were asked for."""
        if contract.window_rows > 1:
            held = self._carried + rows
            count = len(held) // (width * 4)
            skip = windowing.carry_from(count, contract.window_rows, contract.stride_rows)
            self._carried = held[skip * width * 4 :]

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

    async def _close_window(self) -> None:
        """Turn the account into a report, with the statistics of the worker in place."""
        await _finish(self._settle())
        self._exchange.flush()
        account = self._exchange.take_account()
        start_ms, self._start_ms = self._start_ms, self._now_ms()
        self._drop_unread(account)
        worker = self._worker
        if worker is None:  # nothing is loaded: keep the count for the next window
            self._exchange.account = account
            return
        taken = await worker.take_statistics()
        restarts = worker.restarts - self._restarts_before
        self._restarts_before = worker.restarts
        report = report_of(account, worker, taken, restarts, start_ms, self._start_ms)
        if report is not None:
            self._closed.append(report)

    @property
    def _account(self) -> Account:
        return self._exchange.account


def _contract(worker: Worker) -> Contract:
    return worker.release.manifest.contract


async def _finish(batch: Coroutine[None, None, _T]) -> _T:
    """Settle the batch in hand even when cancelled: half an exchange would break the next one."""
    task = asyncio.ensure_future(batch)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(BatchFailedError):
            await task
        raise
