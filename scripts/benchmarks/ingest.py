"""Group ingest: what the controller takes in, and how soon it can be read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from local_fleet.ports import HOST

from benchmarks.figure import Figure, Options, ratio_figure
from benchmarks.ingest_rig import SCRIPTS, Rig, ingest_rig, run_load
from benchmarks.large_fleet import cost_growth, cpu_100k, rss_100k
from benchmarks.telemetry_load import TelemetryLoad
from benchmarks.visible import visible_p99
from controller.broker import INGEST_ACCOUNT

CLIENTS = 200
SUBSCRIBER_SECONDS = 300.0


def ingest_ratio(options: Options) -> Figure:
    """Messages/s committed by the ingest process ÷ messages/s received by a bare subscriber.

    The same broker, the same 200 connections, the same load of health and statistics; from the
    first message sent to the last one committed, or received. The other parts of the controller
    do not run.
    """
    rounds = int(options.scaled(100, 10))

    async def all_runs() -> list[tuple[float, float]]:
        async with ingest_rig(CLIENTS) as rig:
            return [
                await asyncio.to_thread(_run, rig, number, rounds)
                for number in range(options.runs + 1)
            ][1:]

    return ratio_figure("ingest_ratio", asyncio.run(all_runs()), "bare subscriber", "messages/s")


def _run(rig: Rig, number: int, rounds: int) -> tuple[float, float]:
    messages = TelemetryLoad(f"boot-{number}").rounds(list(rig.passwords), rounds)
    plan = rig.write_plan(messages)
    count = sum(map(len, messages.values()))
    bare = _received_per_second(rig, plan, count)
    return _committed_per_second(rig, plan, count), bare


def _committed_per_second(rig: Rig, plan: Path, count: int) -> float:
    before = rig.committed()
    with rig.ingest():
        started = run_load(plan)["started"]
        return count / (rig.wait_committed(before + count) - started)


def _received_per_second(rig: Rig, plan: Path, count: int) -> float:
    """A clean session under ingest's name also ends what the broker kept for ingest."""
    command = [HOST, str(rig.port), INGEST_ACCOUNT, rig.ingest_password, str(count)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_subscriber", *command],
        cwd=SCRIPTS,
        stdout=subprocess.PIPE,
        text=True,
    ) as subscriber:
        assert subscriber.stdout is not None
        try:
            if subscriber.stdout.readline().strip() != "ready":
                raise RuntimeError("bare subscriber: did not subscribe")
            started = run_load(plan)["started"]
            return count / (float(subscriber.stdout.readline()) - started)
        finally:
            subscriber.kill()


MEASUREMENTS = {
    "ingest_ratio": ingest_ratio,
    "visible_p99": visible_p99,
    "cpu_100k": cpu_100k,
    "rss_100k": rss_100k,
    "cost_growth": cost_growth,
}
