"""From raw messages to rows, without I/O: validate, recognise, sort by table.

`Folder` keeps what is needed to do that: which devices are enrolled, and which sequence numbers of
each boot are committed. A batch that fails to commit is folded again from a fresh folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from controller.ingest.ranges import Ranges, add
from shoal.errors import InvalidInputError
from shoal.protocol.messages import (
    Captures,
    Event,
    Health,
    Predictions,
    Reply,
    State,
    Statistics,
    UpMessage,
    Window,
    decode,
    identify,
)
from shoal.protocol.topics import DOWN_CHANNELS, Topic, parse_topic

Boot = tuple[str, str]
"""(device, boot_id)"""
Row = dict[str, Any]


@dataclass(slots=True)
class Batch:
    """What one transaction writes."""

    windows: list[Row] = field(default_factory=list)
    statistics: list[Row] = field(default_factory=list)
    health: list[Row] = field(default_factory=list)
    predictions: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    replies: list[Row] = field(default_factory=list)
    captures: list[Row] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    newest_health: dict[str, Health] = field(default_factory=dict)
    seen: dict[str, bool] = field(default_factory=dict)
    """Devices heard of, with their clock_synced."""
    boots: set[Boot] = field(default_factory=set)
    """Boots whose ranges changed, or that need their `acked` said again."""
    rejections: dict[tuple[str, str, str], tuple[int, str]] = field(default_factory=dict)
    """(device, channel, code) → (count, sentence of the latest)"""
    messages: int = 0
    duplicates: int = 0


class Folder:
    """Folds messages into batches; `devices` maps enrolled devices to their site."""

    def __init__(self, devices: dict[str, str], ranges: dict[Boot, Ranges]) -> None:
        self.devices = devices
        self.ranges = ranges

    def fold(self, messages: list[tuple[str, bytes]], now_ms: int) -> Batch:
        """Return everything to write for `messages` of (topic, payload)."""
        batch = Batch()
        for text, payload in messages:
            batch.messages += 1
            if payload:  # an empty retained message clears a topic
                self._fold_one(batch, text, payload, now_ms)
        return batch

    def _fold_one(self, batch: Batch, text: str, payload: bytes, now_ms: int) -> None:
        device, channel = "", ""
        try:
            topic = parse_topic(text)
            device, channel = topic.device, topic.channel.value
            self._check_known(topic)
            message: UpMessage = decode(topic.channel, payload)
            _check_identity(topic, message)
        except InvalidInputError as error:
            self._reject(batch, device, channel, error)
            self._settle_rejected(batch, device, payload)
            return
        if not self._is_new(batch, message):
            return
        batch.seen[device] = message.clock_synced
        _sort(batch, message, now_ms)

    def _check_known(self, topic: Topic) -> None:
        site = self.devices.get(topic.device)
        if site is None:
            raise InvalidInputError(
                f"{topic.device}: not enrolled, or revoked", code="unknown-device"
            )
        if site != topic.site:
            raise InvalidInputError(
                f"{topic.device}: enrolled at {site}, publishes at {topic.site}", code="wrong-site"
            )
        if topic.channel in DOWN_CHANNELS:
            raise InvalidInputError(
                f"{topic.device}: publishes on {topic.channel.value}", code="wrong-channel"
            )

    def _is_new(self, batch: Batch, message: UpMessage) -> bool:
        if message.seq == 0:  # the last will has no place in the sequence
            return isinstance(message, State) and not message.online
        boot = (message.device, message.boot_id)
        batch.boots.add(boot)
        if add(self.ranges.setdefault(boot, []), message.seq):
            return True
        batch.duplicates += 1
        return False

    def _settle_rejected(self, batch: Batch, device: str, payload: bytes) -> None:
        """Acknowledge a bad message of a known device, or it would be sent for ever."""
        found = identify(payload)
        if found is not None and found[0] == device and device in self.devices and found[2]:
            boot = (device, found[1])
            add(self.ranges.setdefault(boot, []), found[2])
            batch.boots.add(boot)

    @staticmethod
    def _reject(batch: Batch, device: str, channel: str, error: InvalidInputError) -> None:
        key = (device, channel, error.code)
        count, _ = batch.rejections.get(key, (0, ""))
        batch.rejections[key] = (count + 1, error.sentence[:1000])


def strangers(messages: list[tuple[str, bytes]], devices: dict[str, str]) -> set[str]:
    """Devices that topics name and that are not known: enrolled just now, or not at all."""
    found = set()
    for text, _ in messages:
        levels = text.split("/", 4)
        if len(levels) == 5 and levels[3] not in devices:
            found.add(levels[3])
    return found


def _check_identity(topic: Topic, message: UpMessage) -> None:
    said = (message.site, message.device, getattr(message, "model", None))
    model = topic.model if topic.model is not None else said[2]
    if said != (topic.site, topic.device, model):
        raise InvalidInputError(
            f"{topic.device}: the message says it is of {said[0]}/{said[1]} model {said[2]}",
            code="wrong-identity",
        )


def _sort(batch: Batch, message: UpMessage, now_ms: int) -> None:
    match message:
        case State():
            batch.states.append(message)
        case Window():
            batch.windows.append(_row(message, now_ms, _WINDOW))
        case Statistics():
            batch.statistics.append(_row(message, now_ms, _STATISTICS))
        case Event():
            batch.events.append(_row(message, now_ms, _EVENT))
        case Health():
            batch.health.append(_row(message, now_ms, _HEALTH))
            batch.newest_health[message.device] = message
        case Predictions():
            batch.predictions += _predictions(message)
        case Captures():
            batch.captures += _captures(message, now_ms)
        case Reply():
            batch.replies.append(_row(message, now_ms, _REPLY))


def _row(message: UpMessage, now_ms: int, names: tuple[str, ...]) -> Row:
    row = {name: getattr(message, name) for name in names}  # the database encodes structs
    row["received_ms"] = now_ms
    return row


def _predictions(message: Predictions) -> list[Row]:
    labels = message.labels or [""] * len(message.sample_ms)
    return [
        {
            "device": message.device,
            "model": message.model,
            "release_sequence": message.release_sequence,
            "sample_ms": ms,
            "values": dict(zip(message.names, values, strict=False)),
            "label": label,
        }
        for ms, values, label in zip(message.sample_ms, message.values, labels, strict=False)
    ]


def _captures(message: Captures, now_ms: int) -> list[Row]:
    common = ("device", "model", "version", "release_sequence", "features", "redacted")
    return [
        {
            **_row(message, now_ms, common),
            "capture": sample.capture,
            "sample_ms": sample.sample_ms,
            "reason": sample.reason,
            "rows": sample.rows,
            "outputs": dict(zip(message.names, sample.outputs, strict=False)),
            "label": sample.label,
        }
        for sample in message.samples
    ]


_COMMON = ("device", "model", "version", "release_sequence", "slot", "start_ms", "end_ms")
_WINDOW = (
    *_COMMON,
    "in_count",
    "ok",
    "dropped",
    "failed",
    "latency_p50_us",
    "latency_p95_us",
    "latency_p99_us",
    "latency_max_us",
    "latency_counts",
    "worker_restarts",
    "worker_pss_bytes",
    "labels",
)
_STATISTICS = (*_COMMON, "baseline", "rows", "lost", "features", "outputs")
_REPLY = ("device", "command", "boot_id", "part", "parts", "ok", "code", "sentence", "text")
_EVENT = (
    "device",
    "ts_ms",
    "kind",
    "code",
    "severity",
    "sentence",
    "model",
    "version",
    "rollout",
    "attempt",
    "data",
)
_HEALTH = (
    "device",
    "ts_ms",
    "cpu_ratio",
    "memory_available_bytes",
    "agent_pss_bytes",
    "workers_pss_bytes",
    "outbox_rows",
    "temperature_c",
)
