"""Figures of the agent's worker processes: how fast one is there, and there again."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.ports import StagedRelease
from agent.workers.frames import InferRequest
from agent.workers.pool import ForkserverPool, Worker
from benchmarks.figure import Figure, Options, figure
from benchmarks.models import small_model, stage


def worker_ready(options: Options) -> Figure:
    """Forkserver clone, load and first answer; the forkserver runs already."""

    async def run(pool: ForkserverPool, release: StagedRelease) -> float:
        started = time.perf_counter()
        worker = await pool.load(release)
        await worker.infer(_request(worker))
        taken = time.perf_counter() - started
        await worker.close()
        return taken * 1000

    return figure("worker_ready", "ms", asyncio.run(_repeat(run, options)))


def crash_recovery(options: Options) -> Figure:
    """SIGKILL of the worker between two requests to the next answer."""

    async def run(pool: ForkserverPool, release: StagedRelease) -> float:
        worker = await pool.load(release)
        await worker.infer(_request(worker))
        victim = worker.pid
        started = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        await worker.infer(_request(worker))
        taken = time.perf_counter() - started
        if worker.pid == victim:
            raise RuntimeError(f"worker {victim}: answered after SIGKILL")
        await worker.close()
        return taken * 1000

    return figure("crash_recovery", "ms", asyncio.run(_repeat(run, options)))


def hang_recovery_over_deadline(options: Options) -> Figure:
    """SIGSTOP of the worker to the next answer, less the deadline of the request."""

    async def run(pool: ForkserverPool, release: StagedRelease) -> float:
        worker = await pool.load(release)
        await worker.infer(_request(worker))
        deadline = pool.options.min_deadline_ms
        started = time.perf_counter()
        os.kill(worker.pid, signal.SIGSTOP)
        await worker.infer(_request(worker))
        taken = time.perf_counter() - started
        await worker.close()
        return taken * 1000 - deadline

    return figure("hang_recovery_over_deadline", "ms", asyncio.run(_repeat(run, options)))


async def _repeat(
    run: Callable[[ForkserverPool, StagedRelease], Awaitable[float]], options: Options
) -> list[float]:
    async with _loaded() as (pool, release):
        await run(pool, release)
        return [await run(pool, release) for _ in range(options.runs)]


@asynccontextmanager
async def _loaded() -> AsyncIterator[tuple[ForkserverPool, StagedRelease]]:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        release = stage(small_model(Path(folder)), Path(folder))
        pool = ForkserverPool()
        try:
            yield pool, release
        finally:
            await pool.stop()


def _request(worker: Worker) -> InferRequest:
    width = len(worker.release.manifest.contract.features)
    return InferRequest(0, 1, width, bytes(4 * width))
