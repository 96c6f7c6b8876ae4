"""A simulated device: what it says, and when, from its own seed. No I/O, no clock.

It obeys desired states as `agent` does, step by step, with the messages of the wire contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from controller.simulation.scenario import Scenario
from shoal.ids import DeviceId, ModelName, SiteId
from shoal.protocol.desired import Assignment, DesiredState
from shoal.protocol.messages import (
    LATENCY_EDGES_US,
    Event,
    ModelState,
    State,
    UpMessage,
    Window,
    encode,
)
from shoal.protocol.topics import Channel, Topic, format_topic

ROWS = 300
"""Rows in a window."""
BASE_LATENCY_US = 4000.0
Message = tuple[str, bytes]
"""Topic and payload, as they stand on the broker."""


@dataclass(frozen=True, slots=True)
class Running:
    """A release on the device."""

    version: str
    sequence: int
    manifest: str


@dataclass(slots=True)
class Device:
    """One device of the fleet."""

    name: str
    site: str
    model: str
    scenario: Scenario
    random: Random
    runs: Running
    broken: bool = False
    """Its sensors are."""
    online_from_ms: int = 0
    """Not heard of before; with no end, it never comes."""
    accepted: int = 0
    """Highest desired state obeyed."""
    doing: tuple[str, int, str] = ("", 0, "")
    """Rollout, attempt and intent that it works on or has done."""
    _before: Running | None = None
    """What it ran before the release that it tries."""
    _seq: int = 0
    _level: float = 0.0
    """Its own share of anomalies, about the fleet's."""
    _speed: float = field(default=1.0)

    def __post_init__(self) -> None:
        self._level = self.random.uniform(0.03, 0.07)
        self._speed = self.random.uniform(0.8, 1.25)

    # saying

    def state(self, now_ms: int, *, online: bool = True) -> Message:
        """What it is and runs; with `online` false its last will."""
        running = ModelState(
            model=self.model,
            active_version=self.runs.version,
            active_sequence=self.runs.sequence,
            active_manifest=self.runs.manifest,
        )
        message = State(
            device=self.name,
            site=self.site,
            boot_id="simulated",
            seq=self._next() if online else 0,
            ts_ms=now_ms,
            online=online,
            desired_sequence=self.accepted,
            models=[running],
            facts={"runtimes": "tflite", "arch": "aarch64", "memory_mb": 2048},
        )
        return self._to(Channel.STATE, message)

    def window(self, start_ms: int, end_ms: int, new_sequence: int) -> Message:
        """What its model did."""
        new = self.runs.sequence == new_sequence
        scenario = self.scenario
        failed = self._count(0.002 + (scenario.failed_rows if new else 0.0))
        share = self._level + (scenario.anomaly_ratio if new else 0.0) + 0.4 * self.broken
        odd = min(self._count(share), ROWS - failed)
        latency = BASE_LATENCY_US * self._speed * (scenario.latency_ratio if new else 1.0)
        counts = self._latencies(latency, ROWS - failed)
        message = Window(
            device=self.name,
            site=self.site,
            boot_id="simulated",
            seq=self._next(),
            ts_ms=end_ms,
            model=self.model,
            version=self.runs.version,
            release_sequence=self.runs.sequence,
            manifest=self.runs.manifest,
            start_ms=start_ms,
            end_ms=end_ms,
            in_count=ROWS,
            ok=ROWS - failed,
            failed={"simulated": failed} if failed else {},
            latency_p50_us=latency,
            latency_p95_us=latency * 1.4,
            latency_p99_us=latency * 1.8,
            latency_max_us=latency * 2,
            latency_counts=counts,
            labels={"normal": ROWS - failed - odd, "anomaly": odd},
        )
        return self._to(Channel.WINDOW, message, self.model)

    # obeying

    def obey(self, desired: DesiredState) -> Iterator[tuple[float, str, Assignment]]:
        """Steps towards a desired state, as (seconds after it came, step, assignment).

        The caller lets each step happen when its time comes (`take`), unless something newer came.
        """
        self.accepted = max(self.accepted, desired.sequence)
        for one in desired.models:
            key = (one.rollout, one.attempt, one.intent)
            if key != self.doing:
                self.doing = key
                back = one.intent == "rollback"
                yield from self._back(one) if back else self._forward(one)

    def take(self, step: str, one: Assignment, now_ms: int) -> list[Message]:
        """Let a step happen; [] when something newer has come since."""
        if (one.rollout, one.attempt, one.intent) != self.doing:
            return []
        said = []
        if step == "activating":
            self.runs, self._before = _release_of(one), self.runs
            said.append(self.state(now_ms))
        elif step == "rolled_back" and self._before is not None:
            self.runs = self._before
            said.append(self.state(now_ms))
        return [*said, self._event(step, one, now_ms)]

    def _forward(self, one: Assignment) -> Iterator[tuple[float, str, Assignment]]:
        draw, scenario = self.random, self.scenario
        at = draw.uniform(0.5, 5.0)
        yield at, "accepted", one
        if self.runs.manifest == one.manifest_sha256:
            yield at + 1.0, "succeeded", one
            return
        at += draw.uniform(0.5, 2.0)
        yield at, "downloading", one
        slow = 20.0 if draw.random() < scenario.slow_share else 1.0
        at += scenario.download_seconds * slow * draw.uniform(0.6, 1.8)
        if draw.random() < scenario.flaky_share:
            yield at, "failed", one
            return
        yield at, "staged", one
        at += draw.uniform(1.0, 4.0)
        yield at, "verifying", one
        at += draw.uniform(1.0, 6.0)
        if draw.random() < scenario.unfit_share:
            yield at, "rejected", one
            return
        if one.shadow_seconds:
            yield at, "shadowing", one
            at += one.shadow_seconds
        yield at, "activating", one
        yield at + 1.0, "soaking", one
        probation = one.probation_seconds or 0.0
        if draw.random() < scenario.crashing_share:
            yield at + 2.0 + probation * draw.uniform(0.1, 0.9), "rolled_back", one
            return
        yield at + 2.0 + probation, "succeeded", one

    def _back(self, one: Assignment) -> Iterator[tuple[float, str, Assignment]]:
        at = self.random.uniform(0.5, 5.0)
        yield at, "accepted", one
        if self.runs.manifest != one.manifest_sha256:
            yield at + self.random.uniform(1.0, 4.0), "activating", one
        yield at + 5.0, "succeeded", one

    def _event(self, step: str, one: Assignment, now_ms: int) -> Message:
        bad = step in ("failed", "rejected", "rolled_back")
        message = Event(
            device=self.name,
            site=self.site,
            boot_id="simulated",
            seq=self._next(),
            ts_ms=now_ms,
            kind="execution",
            code=f"simulated-{step}" if bad else step,
            severity="error" if bad else "info",
            sentence=_WORDS.get(step, ""),
            model=one.model,
            version=one.version,
            rollout=one.rollout or None,
            attempt=one.attempt,
            data={"state": step, "intent": one.intent},
        )
        return self._to(Channel.EVENTS, message)

    def _count(self, share: float) -> int:
        """So many of a window's rows, more or less."""
        mean = share * ROWS
        return min(max(round(self.random.gauss(mean, (mean * (1 - share)) ** 0.5)), 0), ROWS)

    def _latencies(self, typical_us: float, rows: int) -> list[int]:
        """A histogram: most answers take the typical time, a tenth half as long again."""
        counts = [0] * (len(LATENCY_EDGES_US) + 1)
        late = rows // 10
        for value, count in ((typical_us, rows - late), (typical_us * 1.5, late)):
            place = sum(edge < value * self.random.uniform(0.95, 1.05) for edge in LATENCY_EDGES_US)
            counts[place] += count
        while counts and not counts[-1]:
            counts.pop()
        return counts

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _to(self, channel: Channel, message: UpMessage, model: str | None = None) -> Message:
        named = ModelName(model) if model is not None else None
        topic = Topic(SiteId(self.site), DeviceId(self.name), channel, named)
        return format_topic(topic), encode(message)


_WORDS = {
    "failed": "the download broke off",
    "rejected": "the release does not fit",
    "rolled_back": "the worker crashed during probation",
}


def _release_of(one: Assignment) -> Running:
    return Running(one.version, one.release_sequence, one.manifest_sha256)
