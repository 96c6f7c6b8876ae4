"""Figures of swapping: one hundred swaps between two releases while rows come at 500 Hz."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

from agent.ports import StagedRelease
from benchmarks.figure import Figure, Options, figure, repeat
from benchmarks.models import small_model
from benchmarks.plant import Plant, running_plant
from shoal.protocol.manifest import decode_manifest

RATE_HZ = 500.0
ROWS_BETWEEN = 10
DRAIN_SECONDS = 10.0


def swap_gap_max(options: Options) -> Figure:
    """Longest time between two answers over the whole run."""
    return figure("swap_gap_max", "ms", [one.longest_gap_ms for one in _runs(options)])


def swap_lost(options: Options) -> Figure:
    """Rows that left the source and got no answer, in the same runs."""
    return figure("swap_lost", "samples", [float(one.lost) for one in _runs(options)])


@dataclass(frozen=True, slots=True)
class _Run:
    longest_gap_ms: float
    lost: int


@cache
def _runs(options: Options) -> list[_Run]:
    swaps = int(options.scaled(100, 10))
    return repeat(lambda: asyncio.run(_run(swaps)), options)


async def _run(swaps: int) -> _Run:
    async with running_plant(small_model, RATE_HZ, keep_times=True) as plant:
        await plant.probe.answered(100)
        first = len(plant.probe.answered_at)
        for _ in range(swaps):
            await _swap(plant)
            await plant.probe.answered(plant.probe.rows + ROWS_BETWEEN)
        times = plant.probe.answered_at[first:]
        plant.source.ended = True
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await plant.probe.answered(plant.source.sent)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return _Run(max(gaps) * 1000, plant.source.sent - plant.probe.rows)


async def _swap(plant: Plant) -> None:
    """What the slot manager does: read the manifest, load, swap, end the old worker."""
    release = plant.release
    data = (release.folder / release.manifest_sha256).read_bytes()
    fresh: StagedRelease = replace(release, manifest=decode_manifest(data))
    before = await plant.pipeline.swap(await plant.pool.load(fresh))
    if before is not None:
        await before.close()
