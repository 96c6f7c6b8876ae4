"""Figures of the pipeline: rows a second against a bare interpreter, latency, lag of the loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.figure import Figure, Options, figure, ratio_figure, repeat
from benchmarks.models import autoencoder, resnet, small_model, stage
from benchmarks.plant import ROWS, running_plant
from shoal.package import Package

SCRIPTS = Path(__file__).resolve().parents[1]
LATENCY_HZ = 100.0
WARM_ROWS = 20
LAG_PERIOD_SECONDS = 0.005


def pipeline_ratio_resnet(options: Options) -> Figure:
    """Rows/s from source to outbox ÷ rows/s of a bare interpreter loop, ResNet-8 int8."""
    return _ratio("pipeline_ratio_resnet", lambda folder: resnet(), options)


def pipeline_ratio_autoencoder(options: Options) -> Figure:
    """The same, ad01 int8."""
    return _ratio("pipeline_ratio_autoencoder", autoencoder, options)


def added_latency_p99(options: Options) -> Figure:
    """From the source's row to the action's answer, less the runtime's own time, at 100 Hz.

    The runtime's time is what the worker measured around the call that quantises, invokes and
    dequantises that very row.
    """
    rows = int(options.scaled(1000, 100))

    async def run() -> float:
        async with running_plant(small_model, LATENCY_HZ, keep_times=True) as plant:
            plant.probe.watch(plant.worker)
            await plant.probe.answered(rows + WARM_ROWS)
        times = zip(
            plant.probe.left_at, plant.probe.answered_at, plant.probe.invoked_seconds, strict=False
        )
        added = sorted((answered - left - own) * 1000 for left, answered, own in times)
        return added[int(len(added) * 0.99)]

    return figure("added_latency_p99", "ms", _repeated(run, options))


def loop_lag_p99(options: Options) -> Figure:
    """How late the agent's event loop wakes while rows go through as fast as they can."""
    seconds = options.scaled(4.0, 1.0)

    async def run() -> float:
        async with running_plant(small_model) as plant:
            await plant.probe.answered(ROWS)
            lags = []
            ends = time.monotonic() + seconds
            while (before := time.monotonic()) < ends:
                await asyncio.sleep(LAG_PERIOD_SECONDS)
                lags.append(time.monotonic() - before - LAG_PERIOD_SECONDS)
        return sorted(lags)[int(len(lags) * 0.99)] * 1000

    return figure("loop_lag_p99", "ms", _repeated(run, options))


def _repeated(run: Callable[[], Awaitable[float]], options: Options) -> list[float]:
    async def once() -> float:
        return await run()

    return repeat(lambda: asyncio.run(once()), options)


def _ratio(name: str, make: Callable[[Path], Package], options: Options) -> Figure:
    seconds = options.scaled(3.0, 0.6)

    def run() -> tuple[float, float]:
        return asyncio.run(_rows_per_second(make, seconds)), _bare_rows_per_second(make, seconds)

    return ratio_figure(name, repeat(run, options), "bare interpreter loop", "rows/s")


async def _rows_per_second(make: Callable[[Path], Package], seconds: float) -> float:
    async with running_plant(make) as plant:
        await plant.probe.answered(ROWS)
        await asyncio.sleep(seconds / 5)
        before, started = plant.probe.rows, time.perf_counter()
        await asyncio.sleep(seconds)
        return (plant.probe.rows - before) / (time.perf_counter() - started)


def _bare_rows_per_second(make: Callable[[Path], Package], seconds: float) -> float:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as text:
        folder = Path(text)
        release = stage(make(folder), folder)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.bare_loop",
                str(release.path(release.variant.file)),
                str(seconds),
            ],
            cwd=SCRIPTS,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds * 10 + 60,
        )
    return float(done.stdout)
