"""`python -m benchmarks.agents_load PLAN.json`: many agents that take every release at once.

Simulated are the devices: a few connections carry all identities. Each obeys its desired state as
it arrives, with the messages of a real agent: an event a step, then its state with the manifest
that it runs, then success. Prints `ready` when every device has said that it is there; runs until
killed.

The plan holds {"host", "port", "logins": [[user, password], …], "boot_id", "devices"}; devices are
named `device-<number>`.
"""

from __future__ import annotations

import itertools
import json
import queue
import sys
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.telemetry_load import SITE
from shoal.ids import DeviceId
from shoal.protocol.desired import Assignment, decode_desired
from shoal.protocol.envelope import decode_envelope
from shoal.protocol.messages import Event, ModelState, State, encode
from shoal.protocol.topics import RETAINED_CHANNELS, Channel, Topic, format_topic

STEPS = ("accepted", "downloading", "staged", "verifying", "activating", "soaking")


class Agents:
    """All devices; each has its own sequence."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._boot_id = plan["boot_id"]
        self._seq = {f"device-{number}": itertools.count(1) for number in range(plan["devices"])}
        self._obeyed: dict[str, int] = {}
        self._inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._clients = [_connect(plan, user, password) for user, password in plan["logins"]]
        self._clients[0].on_message = lambda c, u, message: self._inbox.put(bytes(message.payload))

    def run(self) -> None:
        """Say that everybody is there, then obey for ever."""
        for device in self._seq:
            self._state(device, 0, [])
        self._clients[0].subscribe(f"shoal/v1/{SITE}/+/desired", qos=1)
        print("ready", flush=True)
        while True:
            state = decode_desired(decode_envelope(self._inbox.get()).payload)
            if state.sequence > self._obeyed.get(state.device, 0):
                self._obeyed[state.device] = state.sequence
                self._obey(state.device, state.sequence, state.models)

    def _obey(self, device: str, sequence: int, models: list[Assignment]) -> None:
        for one in models:
            for step in STEPS:
                self._event(device, one, step)
        running = [
            ModelState(
                model=one.model,
                active_version=one.version,
                active_sequence=one.release_sequence,
                active_manifest=one.manifest_sha256,
            )
            for one in models
        ]
        self._state(device, sequence, running)
        for one in models:
            self._event(device, one, "succeeded")

    def _event(self, device: str, one: Assignment, state: str) -> None:
        event = Event(
            device=device,
            site=SITE,
            boot_id=self._boot_id,
            seq=next(self._seq[device]),
            ts_ms=1,
            kind="execution",
            code=state,
            model=one.model,
            version=one.version,
            rollout=one.rollout,
            attempt=one.attempt,
            data={"state": state, "intent": one.intent},
        )
        self._publish(device, Channel.EVENTS, encode(event))

    def _state(self, device: str, sequence: int, models: list[ModelState]) -> None:
        state = State(
            device=device,
            site=SITE,
            boot_id=self._boot_id,
            seq=next(self._seq[device]),
            ts_ms=1,
            online=True,
            desired_sequence=sequence,
            models=models,
            facts={"runtimes": "tflite", "arch": "x86_64", "memory_mb": 1024},
        )
        self._publish(device, Channel.STATE, encode(state))

    def _publish(self, device: str, channel: Channel, payload: bytes) -> None:
        """Of one device always by the same connection, so that its messages keep their order."""
        client = self._clients[hash(device) % len(self._clients)]
        topic = format_topic(Topic(SITE, DeviceId(device), channel))
        client.publish(topic, payload, qos=1, retain=channel in RETAINED_CHANNELS)


def _connect(plan: dict[str, Any], user: str, password: str) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=user, protocol=mqtt.MQTTv311)
    client.username_pw_set(user, password)
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(200)
    client.connect(plan["host"], plan["port"], keepalive=60)
    client.loop_start()
    return client


if __name__ == "__main__":
    Agents(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run()
