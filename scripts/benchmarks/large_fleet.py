"""Figures of a fleet of 100,000: what the controller costs, and whether it costs more a message.

Real are the broker, the whole controller and every message; simulated are the devices, which
share 16 connections (`fleet_load`), so what 100,000 connections cost a broker is not in it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import cache

from benchmarks.controller_rig import (
    PERIOD_SECONDS,
    ControllerRig,
    Interval,
    controller_rig,
    measure,
)
from benchmarks.figure import Figure, Options, figure, ratio_figure

LARGE, SMALL = 100_000, 1_000
QUICK_LARGE, QUICK_SMALL = 4_000, 200


def cpu_100k(options: Options) -> Figure:
    """Cores that controller and broker use at one health and one statistics a device and minute."""
    return figure("cpu_100k", "cores", [one.cores for one in _runs(options).large])


def rss_100k(options: Options) -> Figure:
    """Resident sets of web server and ingest, after every device has reported."""
    return figure("rss_100k", "MB", [one.rss_bytes / 1e6 for one in _runs(options).large])


def cost_growth(options: Options) -> Figure:
    """Processor time a message at 100,000 devices ÷ at 1,000, at the same messages a second.

    The small fleet sends as much as the large one, each device a hundred times as often: at one
    message a minute it would measure an idle controller instead.
    """
    runs = _runs(options)
    sides = [
        (large.cpu_us_per_message, small.cpu_us_per_message)
        for large, small in zip(runs.large, runs.small, strict=True)
    ]
    return ratio_figure("cost_growth", sides, "1,000 devices", "µs/message")


@dataclass(frozen=True, slots=True)
class _Runs:
    large: list[Interval]
    small: list[Interval]


@cache
def _runs(options: Options) -> _Runs:
    return asyncio.run(_measure(options))


async def _measure(options: Options) -> _Runs:
    devices = int(options.scaled(LARGE, QUICK_LARGE))
    few = int(options.scaled(SMALL, QUICK_SMALL))
    async with controller_rig(few) as rig:
        period = PERIOD_SECONDS * few / devices
        small = await asyncio.to_thread(_talk, rig, few, period, options)
    async with controller_rig(devices) as rig:
        large = await asyncio.to_thread(_talk, rig, devices, PERIOD_SECONDS, options)
    return _Runs(large, small)


def _talk(
    rig: ControllerRig, devices: int, period_seconds: float, options: Options
) -> list[Interval]:
    """Warm up until every device has reported once, then look at some intervals."""
    with rig.load("boot", devices, period_seconds):
        time.sleep(options.scaled(max(period_seconds, 20.0) + 5.0, 4.0))
        return measure(rig, options.scaled(20.0, 3.0), options.runs)
