"""Group statistics: what counting distributions costs a device, and its link."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure, Options, figure, repeat
from shoal.protocol.messages import Statistics, encode
from shoal.statistics import Accumulator, make_baseline

FEATURES = 10
BATCH_ROWS = 32
WINDOW_ROWS = 300
BASELINE_ROWS = 5000


def update_cost(options: Options) -> Figure:
    """Counting 10 features in batches of 32 rows, flushes included."""
    rows = _rows(BATCH_ROWS * int(options.scaled(4000, 400)))
    batches = [rows[start : start + BATCH_ROWS] for start in range(0, len(rows), BATCH_ROWS)]
    accumulator = _accumulator()

    def run() -> float:
        started = time.perf_counter_ns()
        for batch in batches:
            accumulator.update(batch)
        accumulator.take()
        return (time.perf_counter_ns() - started) / rows.size

    return figure("update_cost", "ns/value", repeat(run, options))


def window_bytes(options: Options) -> Figure:
    """One window's statistics message of 10 features and one output, as published."""
    seeds = iter(range(1, 100))
    return figure(
        "window_bytes",
        "B",
        repeat(lambda: float(len(encode(statistics_message(next(seeds))))), options),
    )


def statistics_message(seed: int = 1) -> Statistics:
    """Statistics of one window of plausible rows, as an agent publishes them."""
    accumulator, output = _accumulator(), _accumulator(1)
    accumulator.update(_rows(WINDOW_ROWS, seed))
    output.update(_rows(WINDOW_ROWS, seed)[:, :1])
    return Statistics(
        device="gateway-0001",
        site="site-1",
        boot_id="01234567-89ab-cdef-0123-456789abcdef",
        seq=123_456,
        ts_ms=1_790_000_000_000,
        uptime_ms=86_400_123,
        model="vibration",
        version="1.4.2",
        release_sequence=12,
        manifest="0" * 64,
        runtime="ai-edge-litert",
        runtime_version="2.1.0",
        kernels="xnnpack",
        baseline="0" * 64,
        start_ms=1_790_000_000_000,
        end_ms=1_790_000_060_000,
        rows=WINDOW_ROWS,
        features=accumulator.take(),
        outputs=output.take(),
    )


def _rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Values of plausible sensors: each feature has its own level and spread."""
    random = np.random.default_rng(seed)
    level = np.linspace(-20.0, 1000.0, FEATURES)
    spread = np.geomspace(0.1, 50.0, FEATURES)
    return (random.standard_normal((count, FEATURES)) * spread + level).astype(np.float32)


def _accumulator(width: int = FEATURES) -> Accumulator:
    names = [f"sensor{index}" for index in range(width)]
    rows = _rows(BASELINE_ROWS, seed=99)[:, :width]
    baseline = make_baseline(rows, rows[:, :0], names, [])
    edges = [field.edges for field in baseline.features]
    return Accumulator(names, edges, [(None, None)] * width)


MEASUREMENTS = {"update_cost": update_cost, "window_bytes": window_bytes}
