"""Telling a rollout's story while it runs: one line when a wave or a device takes a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from local_fleet.processes import LocalFleetError

from shoal.client import FINAL_STATES, Client

Document = dict[str, Any]

POLL_SECONDS = 0.3
ENDED = FINAL_STATES | {"paused"}
_TOLD_STATES = frozenset({"failed", "rejected", "timed_out", "rolled_back", "reverted"})


def follow_rollout(
    client: Client, rollout: str, seconds: float, note: Callable[[str], None]
) -> Document:
    """Tell of every step of `rollout` until it ends or pauses; return it as it is then."""
    deadline = time.monotonic() + seconds
    told: dict[str, str] = {}
    while True:
        document = client.rollout(rollout)
        for key, text in (*_wave_lines(document), *_device_lines(client.executions(rollout))):
            if told.get(key) != text:
                told[key] = text
                note(text)
        if document["state"] in ENDED:
            return document
        if time.monotonic() >= deadline:
            raise LocalFleetError(
                f"rollout {rollout}: still {document['state']} after {seconds:g} s"
            )
        time.sleep(POLL_SECONDS)


def _wave_lines(rollout: Document) -> list[tuple[str, str]]:
    return [
        (f"wave {wave['number']}", _wave_line(wave))
        for wave in rollout["waves"]
        if wave["state"] != "pending"
    ]


def _wave_line(wave: Document) -> str:
    devices = "1 device" if wave["size"] == 1 else f"{wave['size']} devices"
    reason = f": {wave['reason']}" if wave["reason"] else ""
    return f"wave {wave['name']} ({devices}) {wave['state']}{reason}"


def _device_lines(executions: list[Document]) -> list[tuple[str, str]]:
    return [
        (f"device {one['device']}", f"{one['device']} {one['state']}: {one['sentence']}")
        for one in executions
        if one["state"] in _TOLD_STATES
    ]
