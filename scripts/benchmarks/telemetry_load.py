"""What a fleet says, as messages ready to send: one health and one statistics a device and round.

Real message types with plausible values; statistics have ten features and one output in the
baseline's bins, as `window_bytes` measures. Devices are simulated, everything behind the broker is
real.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.statistics import statistics_message
from shoal.ids import DeviceId, ModelName, SiteId
from shoal.protocol.messages import Health, encode
from shoal.protocol.topics import Channel, Topic, format_topic

SITE = SiteId("bench")
MODEL = ModelName("vibration")
_HEALTH = Health(
    device="device-0",
    site=SITE,
    boot_id="boot",
    seq=1,
    ts_ms=0,
    cpu_ratio=0.1375,
    load_1m=0.42,
    memory_total_bytes=4_096_000_000,
    memory_available_bytes=2_750_000_000,
    disk_free_bytes=21_500_000_000,
    temperature_c=48.25,
    agent_pss_bytes=24_500_000,
    workers_pss_bytes=19_250_000,
    loop_lag_p99_ms=0.75,
    link_connects=1,
    outbox_rows=3,
    outbox_bytes=4200,
)


class TelemetryLoad:
    """Writes messages of one boot; sequences go on from round to round, as an agent's do."""

    def __init__(self, boot_id: str, first_seq: int = 1) -> None:
        self._boot_id = boot_id
        self._statistics = statistics_message()
        self._seq = first_seq - 1

    def rounds(self, devices: list[str], rounds: int) -> dict[str, list[list[str]]]:
        """Messages by device, as [topic, payload], in the order of their sequence."""
        found: dict[str, list[list[str]]] = {device: [] for device in devices}
        for _ in range(rounds):
            self._seq += 2
            for device in devices:
                found[device] += self._pair(device)
        return found

    def _pair(self, device: str) -> list[list[str]]:
        now_ms = time.time_ns() // 1_000_000
        channels = ((Channel.HEALTH, _HEALTH, None), (Channel.STATISTICS, self._statistics, MODEL))
        pair = []
        for offset, (channel, message, model) in enumerate(channels):
            own: Any = message
            own.device, own.site, own.boot_id = device, SITE, self._boot_id
            own.seq, own.ts_ms = self._seq - 1 + offset, now_ms
            topic = format_topic(Topic(SITE, DeviceId(device), channel, model))
            pair.append([topic, encode(own).decode()])
        return pair
