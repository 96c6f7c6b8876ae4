"""Requests of several peers for one model, gathered into micro-batches.

They go through the pipeline between its own micro-batches, to the same worker, and are counted as
its rows are. What waits is bounded; a request that waits beyond its time is given up unasked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from agent.local_http import HttpError
from agent.pipeline import WorkerPipeline
from agent.workers.frames import InferAnswer
from agent.workers.pool import BatchFailedError, Worker

MAX_BATCH_ROWS = 64
MAX_WAITING_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class _Waiting:
    """Windows that go to the worker together, and who waits for them."""

    worker: Worker
    windows: int
    values: bytes
    answer: asyncio.Future[InferAnswer]


class Asker:
    """One model's."""

    def __init__(self, pipeline: WorkerPipeline) -> None:
        self._pipeline = pipeline
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._pump: asyncio.Task[None] | None = None

    async def ask(
        self, worker: Worker, windows: int, values: bytes, timeout_seconds: float
    ) -> list[InferAnswer]:
        """Answers of so many windows, in parts and in order; `HttpError` says why not."""
        if self._waiting and self._bytes + len(values) > MAX_WAITING_BYTES:
            raise HttpError(503, f"{len(self._waiting)} requests wait already")
        parts = [self._queue(worker, part) for part in _parts(worker, windows, values)]
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="inference")
        try:
            async with asyncio.timeout(timeout_seconds):
                return [await part for part in parts]
        except TimeoutError as error:
            raise HttpError(504, f"no answer within {timeout_seconds:g} s") from error
        except BatchFailedError as error:
            raise HttpError(500, f"{error.code}: {error.sentence}") from error
        finally:
            for part in parts:
                if not part.cancel() and not part.cancelled():
                    part.exception()  # seen, so that asyncio does not complain of it

    def _queue(self, worker: Worker, part: tuple[int, bytes]) -> asyncio.Future[InferAnswer]:
        answer: asyncio.Future[InferAnswer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(worker, *part, answer))
        self._bytes += len(part[1])
        return answer

    async def _run(self) -> None:
        """Until nothing waits."""
        while self._waiting:
            batch = self._gather()
            if not batch:
                continue
            worker = batch[0].worker
            try:
                found = await self._pipeline.ask(worker, [one.values for one in batch])
            except LookupError:
                sentence = "the release was changed while the request waited; ask again"
                _settle(batch, [HttpError(503, sentence)] * len(batch))
            else:
                _settle(batch, found)

    def _gather(self) -> list[_Waiting]:
        """What fits into one micro-batch and still has somebody waiting."""
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            first = self._waiting[0]
            size = first.windows * _rows_each(first.worker)
            if batch and (first.worker is not batch[0].worker or rows + size > MAX_BATCH_ROWS):
                break
            self._waiting.popleft()
            self._bytes -= len(first.values)
            if first.answer.done():
                continue
            batch.append(first)
            rows += size
            if not _joins(first.worker):
                break
        return batch


def _rows_each(worker: Worker) -> int:
    return worker.release.manifest.contract.window_rows


def _joins(worker: Worker) -> bool:
    """Whether windows that stand behind each other stay windows of their own."""
    contract = worker.release.manifest.contract
    return contract.stride_rows == contract.window_rows


def _parts(worker: Worker, windows: int, values: bytes) -> list[tuple[int, bytes]]:
    """Cut a request into what fits into a micro-batch."""
    most = max(MAX_BATCH_ROWS // _rows_each(worker), 1) if _joins(worker) else 1
    size = len(values) // windows
    return [
        (min(most, windows - at), values[at * size : (at + most) * size])
        for at in range(0, windows, most)
    ]


def _settle(
    batch: list[_Waiting], found: Sequence[InferAnswer | BatchFailedError | HttpError]
) -> None:
    """Tell each what became of its windows."""
    for one, outcome in zip(batch, found, strict=True):
        if one.answer.done():
            continue
        if isinstance(outcome, InferAnswer):
            one.answer.set_result(outcome)
        else:
            one.answer.set_exception(outcome)
