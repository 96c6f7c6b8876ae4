"""Rows from MQTT topics, of a broker on the site or of the agent's own.

One `topic` (wildcards too) whose messages are rows: a JSON object, a list of them, or a bare number
as column `value`. Or `topics`, one a feature: then a message makes a row of the newest value of
every feature, each no older than `hold_seconds`; with `every_seconds` rows come at that period
instead. paho has a thread; what it hears waits in a bounded queue. A lost connection is made
again, with jittered back-off.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.access import broker_context, load_broker
from agent.options import Key
from agent.ports import Samples
from agent.sources.kinds import SourceContext, SourceKind
from agent.sources.rows import ROW_KEYS, ColumnPath, Packer, Row, parse_json
from agent.sources.tally import TOO_LONG, Tally
from shoal.errors import InvalidInputError

BATCH_ROWS = 64
MAX_MESSAGES = 4096
MAX_WAITING_BYTES = 4 * 1024 * 1024
BACKOFF_SECONDS = (0.5, 60.0)
CONNECT_SECONDS = 10.0
TIME = "\0time"
OVERLOAD = "overload"


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to connect, and as whom."""

    host: str
    port: int
    username: str = ""
    password: str = ""
    context: ssl.SSLContext | None = None
    client_id: str = ""


class Inbox:
    """Messages between paho's thread and the event loop: bounded, the oldest go."""

    def __init__(self, max_message_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._queue: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._max_message_bytes = max_message_bytes
        self._overload = 0
        self._too_long = 0
        self.arrived = asyncio.Event()
        self.lost = asyncio.Event()

    def put(self, topic: str, payload: bytes) -> None:
        """From paho's thread."""
        with self._lock:
            if len(payload) > self._max_message_bytes:
                self._too_long += 1
            else:
                self._queue.append((topic, payload))
                self._bytes += len(payload)
            while len(self._queue) > MAX_MESSAGES or self._bytes > MAX_WAITING_BYTES:
                self._bytes -= len(self._queue.popleft()[1])
                self._overload += 1
        self.tell(self.arrived)

    def tell(self, event: asyncio.Event) -> None:
        """Set an event of the event loop."""
        self.call(event.set)

    def call(self, do: Callable[..., None], *values: object) -> None:
        """Have the event loop do something; one that is closing hears no more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(do, *values)

    def take(self, most: int) -> tuple[list[tuple[str, bytes]], int, int]:
        """The oldest messages, and how many found no room or were too long since."""
        with self._lock:
            found = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            self._bytes -= sum(len(payload) for _, payload in found)
            overload, too_long = self._overload, self._too_long
            self._overload = self._too_long = 0
            return found, overload, too_long


class RowReader:
    """Rows of messages on one topic."""

    def read(self, topic: str, payload: bytes) -> list[Row]:
        """A message's rows."""
        document = parse_json(payload)
        if isinstance(document, list):
            return [one if isinstance(one, dict) else None for one in document]
        if isinstance(document, int | float) and not isinstance(document, bool):
            return [{"value": document}]
        return [document if isinstance(document, dict) else None]

    def sample(self) -> list[Row]:
        """Nothing comes by the clock."""
        return []


class TopicJoiner:
    """Rows of the newest values of several topics. `topics` is feature → topic."""

    def __init__(
        self,
        topics: dict[str, str],
        columns: dict[str, str],
        time_column: str,
        hold_seconds: float,
        sampled: bool,
    ) -> None:
        self._hold_seconds = hold_seconds or math.inf
        self._sampled = sampled
        self._time = ColumnPath(time_column) if time_column else None
        self._features: dict[str, list[tuple[str, ColumnPath | None]]] = {}
        for feature, topic in topics.items():
            path = ColumnPath(columns[feature]) if feature in columns else None
            self._features.setdefault(topic, []).append((feature, path))
        self._newest: dict[str, tuple[Any, float]] = {}
        self._names = list(topics)
        self._moment: Any = None

    def read(self, topic: str, payload: bytes) -> list[Row]:
        """Remember a message's values; a row of all, unless rows come by the clock."""
        document = parse_json(payload)
        if document is None and payload.strip() != b"null":
            return [None]
        now = time.monotonic()
        try:
            for feature, path in self._features.get(topic, ()):
                value = document if path is None else path.find(document)
                self._newest[feature] = (value, now)
            if self._time is not None:
                self._moment = self._time.find(document)
        except (LookupError, TypeError):
            return [None]
        return [] if self._sampled else self._row(now)

    def sample(self) -> list[Row]:
        """The newest values, when there are any."""
        return self._row(time.monotonic()) if self._newest else []

    def _row(self, now: float) -> list[Row]:
        row: dict[str, Any] = {TIME: self._moment}
        for name in self._names:
            value, since = self._newest.get(name, (None, now))
            row[name] = value if now - since <= self._hold_seconds else None
        return [row]


class MqttSource:
    """`agent.ports.Source` over a subscription."""

    live = True

    def __init__(
        self,
        read_broker: Callable[[], Broker],
        topics: list[str],
        reader: RowReader | TopicJoiner,
        packer: Packer,
        tally: Tally,
        *,
        qos: int,
        every_seconds: float,
        max_message_bytes: int,
    ) -> None:
        self._read_broker = read_broker
        self._topics = [(topic, qos) for topic in topics]
        self._reader = reader
        self._packer = packer
        self._tally = tally
        self._every_seconds = every_seconds
        self._max_message_bytes = max_message_bytes
        self.faults = packer.faults

    def select(self, features: list[str]) -> None:
        """Give these features from the next batch on."""
        self._packer.select(features)

    def take_dropped(self) -> dict[str, int]:
        """Messages it could not use since the last call."""
        return self._tally.take()

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Subscribe for ever."""
        inbox = Inbox(self._max_message_bytes)
        link = asyncio.create_task(self._keep_connected(inbox), name="mqtt-source")
        due = time.monotonic() + self._every_seconds
        try:
            while True:
                wait = max(due - time.monotonic(), 0) if self._every_seconds else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await inbox.arrived.wait()
                inbox.arrived.clear()
                rows = self._read(inbox)
                if self._every_seconds and time.monotonic() >= due:
                    due = max(due + self._every_seconds, time.monotonic())
                    rows += self._reader.sample()
                for start in range(0, len(rows), BATCH_ROWS):
                    samples = self._packer.pack(rows[start : start + BATCH_ROWS])
                    if samples.times_ms:
                        yield samples
        finally:
            link.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await link

    def _read(self, inbox: Inbox) -> list[Row]:
        messages, overload, too_long = inbox.take(BATCH_ROWS)
        if overload:
            self._tally.drop(OVERLOAD, f"mqtt: more than {MAX_MESSAGES} messages wait", overload)
        if too_long:
            limit = f"mqtt: expected at most {self._max_message_bytes} bytes a message, got more"
            self._tally.drop(TOO_LONG, limit, too_long)
        if len(messages) == BATCH_ROWS:
            inbox.arrived.set()  # there may be more
        return [row for topic, payload in messages for row in self._reader.read(topic, payload)]

    async def _keep_connected(self, inbox: Inbox) -> None:
        delay = BACKOFF_SECONDS[0]
        while True:
            started = time.monotonic()
            try:
                await self._session(inbox)
            except (OSError, ValueError, InvalidInputError) as error:
                self._tally.tell_once("not-connected", f"mqtt source: {error}")
            if time.monotonic() - started > BACKOFF_SECONDS[1]:
                delay = BACKOFF_SECONDS[0]
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(delay * 2, BACKOFF_SECONDS[1])

    async def _session(self, inbox: Inbox) -> None:
        """One connection, until it is lost."""
        broker = self._read_broker()
        client = self._client(broker, inbox)
        inbox.lost.clear()
        await asyncio.to_thread(client.connect, broker.host, broker.port, 30)
        client.loop_start()
        try:
            await inbox.lost.wait()
        finally:
            client.disconnect()
            await asyncio.shield(asyncio.to_thread(client.loop_stop))

    def _client(self, broker: Broker, inbox: Inbox) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=broker.client_id,
            clean_session=True,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_SECONDS
        if broker.username:
            client.username_pw_set(broker.username, broker.password)
        if broker.context is not None:
            client.tls_set_context(broker.context)

        def connected(c: mqtt.Client, u: Any, flags: Any, reason: Any, p: Any) -> None:
            if reason.is_failure:
                words = f"mqtt source: {broker.host}:{broker.port} refused: {reason}"
                inbox.call(self._tally.tell_once, "not-connected", words)
                inbox.tell(inbox.lost)
            else:
                c.subscribe(self._topics)

        def subscribed(c: mqtt.Client, u: Any, mid: int, reasons: Any, p: Any) -> None:
            inbox.call(self._tally.forget, "not-connected")
            for (topic, _), reason in zip(self._topics, reasons, strict=False):
                if reason.is_failure:
                    words = f"mqtt source: topic {topic}: {reason}"
                    inbox.call(self._tally.tell_once, "not-subscribed", words)

        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_disconnect = lambda c, u, flags, reason, p: inbox.tell(inbox.lost)
        client.on_message = lambda c, u, message: inbox.put(message.topic, bytes(message.payload))
        return client


_KEYS = {
    "broker": Key("text", "", choices=("", "agent")),
    "host": Key("text", "127.0.0.1"),
    "port": Key("integer", 1883, 1, 65535),
    "username": Key("text", ""),
    "password_file": Key("text", ""),
    "ca_file": Key("text", ""),
    "client_id": Key("text", ""),
    "topic": Key("text", ""),
    "topics": Key("table", {}),
    "qos": Key("integer", 1, 0, 1),
    "hold_seconds": Key("number", 0.0, 0, 1e9),
    "every_seconds": Key("number", 0.0, 0, 86400),
    "max_message_bytes": Key("integer", 262_144, 16, 1 << 24),
    **ROW_KEYS,
}


def _problems(at: str, options: dict[str, Any]) -> list[str]:
    found = []
    if bool(options["topic"]) == bool(options["topics"]):
        found.append(f"{at}.topic: expected either topic or topics")
    if options["topics"]:
        found += [
            f"{at}.topics.{feature}: wildcards are for topic, got {topic!r}"
            for feature, topic in options["topics"].items()
            if not topic or "+" in topic or "#" in topic
        ]
        found += [
            f"{at}.columns.{feature}: expected a path that begins with $, got {path!r}"
            for feature, path in options["columns"].items()
            if not path.startswith("$")
        ]
        if options["time_column"] and not options["time_column"].startswith("$"):
            found.append(f"{at}.time_column: expected a path that begins with $")
    elif options["every_seconds"] or options["hold_seconds"]:
        found.append(f"{at}.topics: every_seconds and hold_seconds need it")
    if not found:
        _parts(options, Tally())
    return found


def _parts(options: dict[str, Any], tally: Tally) -> tuple[RowReader | TopicJoiner, Packer]:
    if not options["topics"]:
        return RowReader(), Packer.of(options, tally)
    joiner = TopicJoiner(
        options["topics"],
        options["columns"],
        options["time_column"],
        options["hold_seconds"],
        sampled=options["every_seconds"] > 0,
    )
    time_column = TIME if options["time_column"] else ""
    flat = {**options, "columns": {}, "time_column": time_column}
    return joiner, Packer.of(flat, tally)


def _broker(options: dict[str, Any], context: SourceContext) -> Broker:
    """Read anew for each connection: credentials change."""
    if options["broker"] == "agent":
        access = load_broker(context.state_dir)
        tls = broker_context(context.state_dir, access)
        return Broker(access.host, access.port, context=tls)
    password = ""
    if options["password_file"]:
        password = Path(options["password_file"]).read_text(encoding="utf-8").strip()
    authority = options["ca_file"]
    return Broker(
        options["host"],
        options["port"],
        options["username"],
        password,
        ssl.create_default_context(cafile=authority) if authority else None,
        options["client_id"],
    )


def _make(options: dict[str, Any], context: SourceContext) -> MqttSource:
    reader, packer = _parts(options, context.tally)
    return MqttSource(
        lambda: _broker(options, context),
        [options["topic"]] if options["topic"] else sorted(set(options["topics"].values())),
        reader,
        packer,
        context.tally,
        qos=options["qos"],
        every_seconds=options["every_seconds"],
        max_message_bytes=options["max_message_bytes"],
    )


MQTT = SourceKind(_KEYS, _make, _problems)
