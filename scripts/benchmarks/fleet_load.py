"""`python -m benchmarks.fleet_load PLAN.json`: what a large fleet says, at its own pace.

Simulated are the devices: a few connections carry all identities, under an account that may
publish for every device. Each device sends one health and one statistics message a period, spread
evenly, with its own boot and rising sequence, at QoS 1. Prints a line `{"sent", "acknowledged"}` a
second, until it is killed.

The plan holds {"host", "port", "logins": [[user, password], …], "boot_id", "first", "devices",
"period_seconds"}; devices are named `device-<number>` from `first` on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mqtt_load import connect, publish_packet
from benchmarks.telemetry_load import TelemetryLoad

TICK_SECONDS = 0.05
DEVICE, BOOT = "device-0", "boot-of-the-template"
SEQ = 987_654_321


@dataclass(slots=True)
class Counts:
    """Of all connections together."""

    sent: int = 0
    acknowledged: int = 0


async def talk(plan: dict[str, Any]) -> None:
    """Publish until killed."""
    counts = Counts()
    clients = [{"id": u, "username": u, "password": p} for u, p in plan["logins"]]
    links = [await connect(plan, client) for client in clients]
    async with asyncio.TaskGroup() as group:
        for number, (reader, writer) in enumerate(links):
            packets = _packets(plan, number, len(links))
            rate = 2 * plan["devices"] / plan["period_seconds"] / len(links)
            group.create_task(_send(writer, packets, rate, counts))
            group.create_task(_count(reader, counts))
        group.create_task(_tell(counts))


def _packets(plan: dict[str, Any], number: int, connections: int) -> Iterator[bytes]:
    """This connection's share of the fleet, round after round, made by filling in a template."""
    pair = TelemetryLoad(BOOT, SEQ).rounds([DEVICE], 1)[DEVICE]
    mids = itertools.cycle(range(1, 65_536))
    devices = range(plan["first"] + number, plan["first"] + plan["devices"], connections)
    for cycle in itertools.count():
        for device in devices:
            name = f"device-{device}"
            for offset, (topic, payload) in enumerate(pair):
                text = payload.replace(f'"{DEVICE}"', f'"{name}"', 1)
                text = text.replace(BOOT, plan["boot_id"], 1)
                text = text.replace(str(SEQ + offset), str(2 * cycle + 1 + offset), 1)
                yield publish_packet(topic.replace(DEVICE, name, 1), text, next(mids))


async def _send(
    writer: asyncio.StreamWriter, packets: Iterator[bytes], rate: float, counts: Counts
) -> None:
    started, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - started) * rate) - sent
        if due > 0:
            writer.write(b"".join(itertools.islice(packets, due)))
            await writer.drain()
            sent += due
            counts.sent += due
        await asyncio.sleep(TICK_SECONDS)


async def _count(reader: asyncio.StreamReader, counts: Counts) -> None:
    while True:
        await reader.readexactly(4)
        counts.acknowledged += 1


async def _tell(counts: Counts) -> None:
    while True:
        await asyncio.sleep(1.0)
        print(json.dumps({"sent": counts.sent, "acknowledged": counts.acknowledged}), flush=True)


if __name__ == "__main__":
    asyncio.run(talk(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
