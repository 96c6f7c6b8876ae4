"""`python -m controller.ingest --config FILE`: read, fold, commit, acknowledge, for ever.

paho's thread puts messages into a bounded inbox, which stops it when full, so the broker keeps what
we cannot take. The main thread commits up to 500 messages at once and only then sends their
PUBACKs, so a kill anywhere has the broker deliver again; sequence ranges make that harmless.
`acked` goes to the devices at most once a second each.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import logging
import os
import signal
import struct
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from controller import schema
from controller.broker import INGEST_ACCOUNT
from controller.config import Settings, load_settings
from controller.database import open_engine, reading, writing
from controller.identity.logins import log_in_as
from controller.ingest.fold import Batch, Boot, Folder, strangers
from controller.ingest.inbox import Inbox
from controller.ingest.ranges import Ranges
from controller.ingest.write import write_batch
from shoal import logs
from shoal.ids import DeviceId, SiteId
from shoal.protocol.messages import Acked, encode
from shoal.protocol.topics import Channel, Topic, format_topic, up_filters

log = logging.getLogger("controller.ingest")

MAX_BATCH = 500
MAX_QUEUE = 5000
GATHER_SECONDS = 0.02
ACK_SECONDS = 1.0
RELOAD_SECONDS = 1.0
RELOAD_SHARE = 50
"""Looking up who is enrolled takes at most one part in so many of our time."""
RETRY_SECONDS = 1.0
_PUBACK = struct.Struct(">BBH")


class Ingest:
    """One process between broker and database."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        self._engine: Engine = open_engine(settings.database_url)
        self._inbox: Inbox[mqtt.MQTTMessage] = Inbox(MAX_QUEUE)
        self._stopping = False
        self._folder = self._load()
        self._reload_at = time.monotonic() + RELOAD_SECONDS
        self._ack_due: dict[str, tuple[float, set[Boot]]] = {}
        self._warned: set[tuple[str, str, str]] = set()
        self._client = self._connect(settings, host, port)

    def run(self) -> None:
        """Work until told to stop; what is queued is committed first."""
        self._client.loop_start()
        while not self._stopping or not self._inbox.empty:
            messages = self._inbox.take(MAX_BATCH, GATHER_SECONDS)
            if messages:
                self._commit(messages)
            self._say_acked()
        self._client.disconnect()
        self._client.loop_stop()
        self._engine.dispose()

    def stop(self) -> None:
        """Finish what is queued, then end."""
        self._stopping = True

    def _connect(self, settings: Settings, host: str, port: int) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=INGEST_ACCOUNT,
            clean_session=False,
            protocol=mqtt.MQTTv311,
            manual_ack=True,
        )
        log_in_as(client, settings, INGEST_ACCOUNT)
        client.reconnect_delay_set(1, 5)
        client.on_connect = self._on_connect
        client.on_message = lambda c, u, message: self._inbox.put(message)
        client.connect_async(host, port, keepalive=30)
        return client

    def _on_connect(
        self, client: mqtt.Client, _user: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        if reason.is_failure:
            log.error("event=refused reason=%r", str(reason))
            return
        client.subscribe([(text, 1) for text in up_filters()])
        log.info("event=connected")

    def _commit(self, messages: list[mqtt.MQTTMessage]) -> None:
        """Commit a batch, trying until the database takes it, then acknowledge."""
        raw = [(message.topic, bytes(message.payload)) for message in messages]
        while True:
            now_ms = time.time_ns() // 1_000_000
            try:
                batch = self._fold(raw, now_ms)
                with writing(self._engine) as connection:
                    write_batch(connection, batch, self._folder.ranges, now_ms)
            except OperationalError as error:
                log.error("event=commit-failed error=%r", str(error.orig))
                time.sleep(RETRY_SECONDS)
                self._folder = self._load()  # the failed attempt's ranges are not committed
            else:
                break
        _acknowledge(self._client, [message.mid for message in messages if message.qos])
        self._after(batch)

    def _fold(self, raw: list[tuple[str, bytes]], now_ms: int) -> Batch:
        began = time.monotonic()
        if began > self._reload_at:
            self._folder.devices = self._devices()
            taken = time.monotonic() - began
            self._reload_at = began + max(RELOAD_SECONDS, taken * RELOAD_SHARE)
        if names := strangers(raw, self._folder.devices):
            self._folder.devices |= self._devices(names)
        return self._folder.fold(raw, now_ms)

    def _after(self, batch: Batch) -> None:
        now = time.monotonic()
        for boot in batch.boots:
            due, boots = self._ack_due.get(boot[0], (now, set()))
            boots.add(boot)
            self._ack_due[boot[0]] = (due, boots)
        for key, (_, sentence) in batch.rejections.items():
            if key not in self._warned and len(self._warned) < 10_000:
                self._warned.add(key)
                log.warning("event=rejected device=%s channel=%s code=%s error=%r", *key, sentence)

    def _say_acked(self) -> None:
        now = time.monotonic()
        for device, (due, boots) in list(self._ack_due.items()):
            if not boots:
                if due < now:
                    del self._ack_due[device]
            elif due <= now:
                self._ack_due[device] = (now + ACK_SECONDS, set())
                for boot in boots:
                    self._publish_acked(boot)

    def _publish_acked(self, boot: Boot) -> None:
        device, boot_id = boot
        site = self._folder.devices.get(device)
        if site is None:
            return
        topic = format_topic(Topic(SiteId(site), DeviceId(device), Channel.ACKED))
        acked = Acked(device=device, boot_id=boot_id, ranges=list(self._folder.ranges[boot]))
        self._client.publish(topic, encode(acked), qos=1, retain=True)

    def _load(self) -> Folder:
        """Read which devices there are and what of them is committed."""
        with reading(self._engine) as connection:
            table = schema.device_boots
            rows = connection.execute(select(table.c.device, table.c.boot_id, table.c.ranges))
            ranges: dict[Boot, Ranges] = {
                (row.device, row.boot_id): [(low, high) for low, high in row.ranges] for row in rows
            }
        folder = Folder(self._devices(), ranges)
        gc.collect()
        gc.freeze()  # else every full collection walks the whole fleet again
        return folder

    def _devices(self, names: set[str] | None = None) -> dict[str, str]:
        """Sites of enrolled devices: of all, or of these."""
        c = schema.devices.c
        query = select(c.device, c.site).where(c.revoked_ms.is_(None))
        if names is not None:
            query = query.where(c.device.in_(names))
        with reading(self._engine) as connection:
            return {row.device: row.site for row in connection.execute(query)}


def _acknowledge(client: mqtt.Client, mids: list[int]) -> None:
    """Send all PUBACKs of a batch as one write.

    `Client.ack` wakes paho's thread and writes to the socket once a message, which costs more than
    committing it. paho has no public way to send several; packets it queues go out whole and in
    order, and a PUBACK expects no answer.
    """
    if mids:
        packets = b"".join(_PUBACK.pack(int(mqtt.PUBACK), 2, mid) for mid in mids)
        client._packet_queue(int(mqtt.PUBACK), packets, 0, 0)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(prog="controller.ingest")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    logs.begin()
    parent = os.getppid()
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return
    ingest = Ingest(load_settings(arguments.config), arguments.host, arguments.port)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: ingest.stop())
    ingest.run()


if __name__ == "__main__":
    main()
