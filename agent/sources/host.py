"""The machine's own live sensors, for trying a device out before its sensors are wired.

Features: cpu_ratio, load_1m, memory_ratio, disk_ratio, network_bytes_per_second, temperature_c
(missing where the machine has no sensor).
"""

from __future__ import annotations

import array
import asyncio
import math
import time
from collections.abc import AsyncGenerator

import psutil

from agent.options import Key
from agent.ports import Samples
from agent.sources.kinds import SourceKind

FEATURES = (
    "cpu_ratio",
    "load_1m",
    "memory_ratio",
    "disk_ratio",
    "network_bytes_per_second",
    "temperature_c",
)


class HostSource:
    """`agent.ports.Source` of one row every 1/rate_hz seconds."""

    live = True

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._features: list[str] = list(FEATURES)

    def select(self, features: list[str]) -> None:
        """Give these features; an unknown one is always missing."""
        self._features = features

    def take_dropped(self) -> dict[str, int]:
        """Nothing is unparsable here."""
        return {}

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Measure for ever."""
        psutil.cpu_percent()
        sent, before = _network_bytes(), time.monotonic()
        while True:
            await asyncio.sleep(1 / self._rate_hz)
            now, total = time.monotonic(), _network_bytes()
            facts = {
                "cpu_ratio": psutil.cpu_percent() / 100,
                "load_1m": psutil.getloadavg()[0],
                "memory_ratio": psutil.virtual_memory().percent / 100,
                "disk_ratio": psutil.disk_usage("/").percent / 100,
                "network_bytes_per_second": (total - sent) / (now - before),
                "temperature_c": read_temperature(),
            }
            sent, before = total, now
            row = array.array("f", [_or_nan(facts.get(name)) for name in self._features])
            yield Samples([time.time_ns() // 1_000_000], row.tobytes(), len(row))


def _network_bytes() -> int:
    counters = psutil.net_io_counters()
    return int(counters.bytes_recv + counters.bytes_sent) if counters else 0


def read_temperature() -> float | None:
    """Hottest sensor of the machine in °C; None where it has none."""
    readings = [one.current for chip in psutil.sensors_temperatures().values() for one in chip]
    return float(max(readings)) if readings else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


HOST = SourceKind(
    {"rate_hz": Key("number", 1.0, 0.001, 100)},
    lambda options, context: HostSource(options["rate_hz"]),
)
