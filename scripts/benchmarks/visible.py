"""How soon what a device publishes can be read through the API, while a fleet talks."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import paho.mqtt.client as mqtt
from local_fleet.ports import HOST
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.controller_rig import ControllerRig, controller_rig
from benchmarks.figure import Figure, Options, figure
from benchmarks.telemetry_load import TelemetryLoad

DEVICES = 1_000
PERIOD_SECONDS = 4.0
"""500 messages a second beside the probes: 15,000 devices' worth."""
POLL_SECONDS = 0.01
VISIBLE_SECONDS = 30.0
PROBE = f"device-{DEVICES}"


def visible_p99(options: Options) -> Figure:
    """From publishing a health message to reading it back, polling every 10 ms."""
    probes = int(options.scaled(100, 10))
    return figure("visible_p99", "s", asyncio.run(_measure(options.runs, probes)))


async def _measure(runs: int, probes: int) -> list[float]:
    async with controller_rig(DEVICES + 1) as rig:
        return await asyncio.to_thread(_all_runs, rig, runs, probes)


def _all_runs(rig: ControllerRig, runs: int, probes: int) -> list[float]:
    user, password = rig.probe_login
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=user, protocol=mqtt.MQTTv311)
    client.username_pw_set(user, password)
    client.connect(HOST, rig.port)
    client.loop_start()
    messages = TelemetryLoad("probe")
    try:
        with rig.load("boot", DEVICES, PERIOD_SECONDS):
            found = []
            for _ in range(runs + 1):
                times = sorted(_probe(rig, client, messages) for _ in range(probes))
                found.append(times[int(len(times) * 0.99) - 1])
            return found[1:]
    finally:
        client.disconnect()
        client.loop_stop()


def _probe(rig: ControllerRig, client: mqtt.Client, messages: TelemetryLoad) -> float:
    topic, payload = messages.rounds([PROBE], 1)[PROBE][0]
    document: dict[str, Any] = json.loads(payload)
    started = time.monotonic()
    client.publish(topic, payload, qos=1)
    while time.monotonic() < started + VISIBLE_SECONDS:
        newest = rig.client.device_health(PROBE, limit=1)
        if newest and newest[0]["ts_ms"] == document["ts_ms"]:
            return time.monotonic() - started
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{PROBE}: published, not readable after {VISIBLE_SECONDS:g} s")
