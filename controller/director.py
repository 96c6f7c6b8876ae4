"""The director: turns assignments into signed desired states, and keeps them on the broker.

A desired state is stored before it is published, retained; whatever dies in between, the next
round publishes it. It is signed anew before it expires, and published again for a device that
stays online without having accepted it (a broker that was killed may have lost it).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy import Connection, Engine, and_, bindparam, or_, select, update

from controller import commands
from controller.broker import DIRECTOR_ACCOUNT
from controller.config import Settings
from controller.database import reading, writing
from controller.identity.logins import log_in_as
from controller.ingest.write import upsert_all
from controller.publication import Publication
from controller.schema import assignments, desired, device_options, devices, releases, rollouts
from shoal.ids import DeviceId, SiteId
from shoal.protocol.desired import Assignment, DesiredState, DeviceOptions
from shoal.protocol.envelope import DESIRED_TYPE, encode_envelope
from shoal.protocol.topics import RETAINED_CHANNELS, Topic, format_topic
from shoal.signing import Signer, seal

log = logging.getLogger("controller.director")

VALID = timedelta(days=7)
RENEW_BEFORE = timedelta(days=2)
BATCH = 500
PUBLISH_SECONDS = 10.0
Take = Callable[[str, bytes], None]


def sign_pending(engine: Engine, signer: Signer, now: datetime) -> int:
    """Sign desired states that changed or expire soon; return how many."""
    renew_ms = int((now + RENEW_BEFORE).timestamp() * 1000)
    with reading(engine) as connection:
        c = desired.c
        due = or_(c.dirty.is_(True), c.expires_ms < renew_ms)
        query = (
            select(c.device)
            .join(devices, devices.c.device == c.device)
            .where(due, devices.c.revoked_ms.is_(None))
            .limit(BATCH)
        )
        names = list(connection.scalars(query))
    if names:
        with writing(engine) as connection:
            _sign(connection, signer, names, now)
    return len(names)


def mark_dirty(connection: Connection, *names: str) -> None:
    """Assignments of these devices changed in this transaction: each needs a new desired state."""
    rows = [
        {"device": name, "sequence": 0, "envelope": b"", "expires_ms": 0, "dirty": True}
        for name in names
    ]
    if rows:
        upsert_all(connection, desired, rows, ("device",), ("dirty",))


def make_desired(
    device: str,
    sequence: int,
    now: datetime,
    models: list[Assignment],
    options: DeviceOptions | None = None,
) -> DesiredState:
    """The desired state of a device, valid for a week. Pure."""
    return DesiredState(
        device=device,
        sequence=sequence,
        issued=now,
        expires=now + VALID,
        models=models,
        options=options or DeviceOptions(),
    )


def _sign(connection: Connection, signer: Signer, names: list[str], now: datetime) -> None:
    c = desired.c
    query = select(c.device, c.sequence).where(c.device.in_(names))
    sequences = {row.device: row.sequence for row in connection.execute(query)}
    options = _options(connection, names)
    models = _assignments(connection, names)
    rows = []
    for name in names:
        given = options.get(name, DeviceOptions())
        state = make_desired(name, sequences[name] + 1, now, models.get(name, []), given)
        rows.append(
            {
                "b_device": name,
                "sequence": state.sequence,
                "envelope": encode_envelope(seal(msgspec.json.encode(state), DESIRED_TYPE, signer)),
                "expires_ms": int(state.expires.timestamp() * 1000),
                "dirty": False,
            }
        )
    connection.execute(update(desired).where(c.device == bindparam("b_device")), rows)


def read_options(connection: Connection, device: str) -> DeviceOptions:
    """The settings that an operator gave this device."""
    return _options(connection, [device]).get(device, DeviceOptions())


def _options(connection: Connection, names: list[str]) -> dict[str, DeviceOptions]:
    c = device_options.c
    query = select(c.device, c.options).where(c.device.in_(names))
    return {
        row.device: msgspec.convert(row.options or {}, type=DeviceOptions)
        for row in connection.execute(query)
    }


def _assignments(connection: Connection, names: list[str]) -> dict[str, list[Assignment]]:
    same = and_(
        assignments.c.model == releases.c.model,
        assignments.c.release_sequence == releases.c.sequence,
    )
    query = (
        select(
            assignments,
            releases.c.version,
            releases.c.manifest_sha256,
            releases.c.manifest_length,
            rollouts.c.options,
        )
        .join(releases, same)
        .outerjoin(rollouts, rollouts.c.rollout == assignments.c.rollout)
        .where(assignments.c.device.in_(names))
        .order_by(assignments.c.device, assignments.c.model)
    )
    found: dict[str, list[Assignment]] = {}
    for row in connection.execute(query):
        found.setdefault(row.device, []).append(_assignment(row))
    return found


def _assignment(row: Any) -> Assignment:
    asked = row.options or {} if row.intent == "update" else {}  # a way back is not tried beside
    return Assignment(
        model=row.model,
        version=row.version,
        release_sequence=row.release_sequence,
        manifest_sha256=row.manifest_sha256,
        manifest_length=row.manifest_length,
        rollout=row.rollout,
        wave=row.wave,
        attempt=row.attempt,
        intent=row.intent,
        probation_seconds=row.probation_seconds,
        shadow_rows=asked.get("shadow_rows"),
        shadow_seconds=asked.get("shadow_seconds"),
    )


def find_unpublished(connection: Connection) -> list[Publication]:
    """Desired states that the broker does not have yet."""
    return _publications(connection, desired.c.published_sequence < desired.c.sequence)


def find_unheard(connection: Connection) -> list[Publication]:
    """Desired states that an online device has not accepted."""
    behind = devices.c.reported_desired_sequence < desired.c.sequence
    return _publications(connection, and_(devices.c.online.is_(True), behind))


def _publications(connection: Connection, here: Any) -> list[Publication]:
    query = (
        select(desired.c.device, devices.c.site, desired.c.sequence, desired.c.envelope)
        .join(devices, devices.c.device == desired.c.device)
        .where(here, devices.c.revoked_ms.is_(None), desired.c.sequence > 0)
        .limit(BATCH)
    )
    return [
        Publication(row.device, row.site, row.sequence, row.envelope)
        for row in connection.execute(query)
    ]


class DirectorLink:
    """The director's own connection to the broker; paho's thread reconnects by itself."""

    def __init__(self, host: str, port: int, settings: Settings) -> None:
        self._connected = threading.Event()
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=DIRECTOR_ACCOUNT, protocol=mqtt.MQTTv311
        )
        log_in_as(client, settings, DIRECTOR_ACCOUNT)
        client.reconnect_delay_set(1, 5)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.max_queued_messages_set(2 * BATCH)
        self._client = client
        self._listening: tuple[str, Take] | None = None
        client.on_message = lambda _c, _u, message: self._heard(message)
        client.connect_async(host, port, keepalive=30)
        client.loop_start()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us."""
        return self._connected.is_set()

    def publish(self, publications: list[Publication]) -> list[Publication]:
        """Publish and return those the broker has acknowledged. Blocks."""
        if not self.connected:
            return []
        waiting = []
        for one in publications:
            topic = Topic(SiteId(one.site), DeviceId(one.device), one.channel)
            retain = one.channel in RETAINED_CHANNELS
            info = self._client.publish(format_topic(topic), one.envelope, qos=1, retain=retain)
            if info.rc == mqtt.MQTT_ERR_SUCCESS:
                waiting.append((one, info))
        done = []
        deadline = time.monotonic() + PUBLISH_SECONDS
        for one, info in waiting:
            info.wait_for_publish(max(deadline - time.monotonic(), 0.0))
            if info.is_published():
                done.append(one)
        return done

    def listen(self, topic_filter: str, take: Take) -> None:
        """Hand what comes on topics of a filter to `take`, which must not block."""
        self._listening = topic_filter, take
        if self.connected:
            self._client.subscribe(topic_filter, 0)

    def send(self, topic: str, payload: bytes) -> None:
        """Publish once, without a confirmation; returns when it has left."""
        info = self._client.publish(topic, payload, qos=0)
        with contextlib.suppress(ValueError, RuntimeError):  # not connected: it is asked for again
            info.wait_for_publish(PUBLISH_SECONDS)

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: mqtt.Client, _user: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        if reason.is_failure:
            log.error("event=refused reason=%r", str(reason))
        else:
            self._connected.set()
            if self._listening is not None:
                client.subscribe(self._listening[0], 0)
            log.info("event=connected")

    def _heard(self, message: mqtt.MQTTMessage) -> None:
        if self._listening is not None:
            self._listening[1](message.topic, bytes(message.payload))

    def _on_disconnect(
        self, client: mqtt.Client, _user: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        self._connected.clear()


class Link(Protocol):
    """What brings publications to devices."""

    @property
    def connected(self) -> bool: ...
    def publish(self, publications: list[Publication]) -> list[Publication]:
        """Publish and return those that have arrived where they are kept."""
        ...

    def close(self) -> None: ...


def utc_now() -> datetime:
    """By the machine's clock."""
    return datetime.now(UTC)


class Director:
    """Signs and publishes; one round does all there is to do."""

    def __init__(
        self, engine: Engine, signer: Signer, link: Link, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._link = link
        self._now = now

    @property
    def connected(self) -> bool:
        """Whether desired states reach the broker."""
        return self._link.connected

    def work(self) -> bool:
        """One round; whether there may be more to do at once."""
        signed = sign_pending(self._engine, self._signer, self._now())
        with reading(self._engine) as connection:
            waiting = find_unpublished(connection)
            waiting += commands.find_unpublished(connection, _now_ms())
        self._record(self._link.publish(waiting))
        return signed == BATCH or (len(waiting) == BATCH and self.connected)

    def remind(self) -> None:
        """Publish again what online devices have not accepted or answered."""
        with reading(self._engine) as connection:
            unheard = find_unheard(connection)
            unheard += commands.find_unanswered(connection, _now_ms())
        self._link.publish(unheard)

    def close(self) -> None:
        """Let go of the connection."""
        self._link.close()

    def _record(self, done: list[Publication]) -> None:
        if not done:
            return
        with writing(self._engine) as connection:
            for one in done:
                if one.command:
                    commands.mark_published(connection, one.command, _now_ms())
                    continue
                here = and_(
                    desired.c.device == one.device, desired.c.published_sequence < one.sequence
                )
                connection.execute(
                    update(desired).where(here).values(published_sequence=one.sequence)
                )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
