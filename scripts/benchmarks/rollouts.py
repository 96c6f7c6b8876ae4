"""Group rollouts: what planning, assigning and stepping large rollouts takes."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime

from benchmarks.controller_rig import ControllerRig, controller_rig
from benchmarks.figure import Figure, Options, figure, repeat
from benchmarks.rollout_rig import MODEL, fleet
from controller.database import reading
from controller.director import BATCH, sign_pending
from controller.rollouts import drawing
from controller.rollouts.engine import Engine
from controller.rollouts.service import create
from controller.rollouts.values import parse_specification
from controller.saved_selectors import moment

LARGE, WAVE = 100_000, 10_000
QUICK_LARGE, QUICK_WAVE = 5_000, 1_000
REPORTS = 1_000
"""Devices that have said something new since the tick before."""
WAVES = [{"name": "canary", "devices": 50}, {"name": "grow", "base": 100, "factor": 4}]


def plan_100k(options: Options) -> Figure:
    """Plan and preview a rollout to 100,000 devices: who can take it, and who is in which wave."""
    with fleet(int(options.scaled(LARGE, QUICK_LARGE))) as rig:
        wanted = parse_specification(rig.specification(waves=WAVES, control_share=0.05))

        def run() -> float:
            started = time.perf_counter()
            with reading(rig.services.engine) as connection:
                found = drawing.preview(connection, wanted, moment(rig.services))
            seconds = time.perf_counter() - started
            _check(found["matched"], rig.size, "devices planned")
            return seconds

        return figure("plan_100k", "s", repeat(run, options))


def assign_10k(options: Options) -> Figure:
    """Release a wave of 10,000 devices: assignments written and desired states signed."""

    def run() -> float:
        with fleet(int(options.scaled(WAVE, QUICK_WAVE))) as rig:
            create(rig.services, parse_specification(rig.specification()), "bench")
            engine, signed = Engine(rig.services), BATCH
            started = time.perf_counter()
            engine.tick()
            total = 0
            while signed == BATCH:
                signed = sign_pending(rig.services.engine, rig.services.director, datetime.now(UTC))
                total += signed
            seconds = time.perf_counter() - started
            _check(total, rig.size, "desired states signed")
            return seconds

    return figure("assign_10k", "s", repeat(run, options))


def tick_100k(options: Options) -> Figure:
    """One step of the engine with 100,000 devices under way, of which 1,000 have news."""
    with fleet(int(options.scaled(LARGE, QUICK_LARGE))) as rig:
        document = create(rig.services, parse_specification(rig.specification()), "bench")
        rig.put_in_flight(document["rollout"])
        engine = Engine(rig.services)
        done = 0

        def run() -> float:
            nonlocal done
            rig.report(document["rollout"], done, REPORTS, "staged")
            done += REPORTS
            started = time.perf_counter()
            engine.tick()
            return time.perf_counter() - started

        return figure("tick_100k", "s", repeat(run, options))


def released_per_minute(options: Options) -> Figure:
    """Devices that run a new release a minute, from the start of a rollout to the last of them."""
    return figure("released_per_minute", "devices", asyncio.run(_release(options)))


async def _release(options: Options) -> list[float]:
    devices = int(options.scaled(WAVE, QUICK_WAVE))
    async with controller_rig(devices) as rig:
        return await asyncio.to_thread(_release_all, rig, devices, options)


def _release_all(rig: ControllerRig, devices: int, options: Options) -> list[float]:
    versions = itertools.count(1)
    with rig.agents(devices):

        def run() -> float:
            version = next(versions)
            rig.release(version)
            started = time.monotonic()
            found = rig.client.create_rollout(
                {
                    "model": MODEL,
                    "version": f"{version}.0",
                    "expect": devices,
                    "waves": [{"name": "all", "share": 1.0}],
                }
            )
            rig.wait_succeeded(found["rollout"], devices)
            seconds = time.monotonic() - started
            rig.client.command_rollout(found["rollout"], "abort")
            return 60 * devices / seconds

        return repeat(run, options)


def _check(got: int, expected: int, what: str) -> None:
    if got != expected:
        raise RuntimeError(f"{what}: expected {expected}, got {got}")


MEASUREMENTS = {
    "plan_100k": plan_100k,
    "assign_10k": assign_10k,
    "tick_100k": tick_100k,
    "released_per_minute": released_per_minute,
}
