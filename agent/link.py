"""The link: paho on one side, the outbox on the other.

paho runs in its own thread; everything it says is passed to the event loop. It holds at most
`MAX_IN_FLIGHT` messages, since its queue is in memory only; the rest stay in the outbox. Sent rows
wait for the controller's `acked`; they are sent again after a reconnect, and after
`RESEND_SECONDS` without one: a broker confirms what it forbids as if it had delivered it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from agent.access import BrokerAccess
from agent.spool import Spool
from shoal.errors import InvalidInputError
from shoal.ids import DeviceId, ModelName, SiteId
from shoal.protocol.messages import Acked, InvalidMessageError, decode
from shoal.protocol.topics import (
    DOWN_CHANNELS,
    MODEL_CHANNELS,
    RETAINED_CHANNELS,
    Channel,
    Topic,
    format_topic,
    parse_topic,
)

log = logging.getLogger("agent.link")

MAX_IN_FLIGHT = 20
MAX_UNACKED = 400
RESEND_SECONDS = 20.0
KEEPALIVE_SECONDS = 30
BACKOFF_SECONDS = (0.2, 60.0)
STEADY_SECONDS = 5.0
"""A session that ends sooner was no success: a refused certificate, two devices of one name."""

ReadAccess = Callable[[], tuple[BrokerAccess, ssl.SSLContext | None]]
"""Read anew for each connection, since certificates change; without TLS only in tests."""


class Link:
    """Keeps the connection, sends what the outbox holds, hands on what comes down."""

    def __init__(
        self,
        site: SiteId,
        device: DeviceId,
        outbox: Spool,
        read_access: ReadAccess,
        last_will: Callable[[], bytes],
        on_desired: Callable[[bytes], None],
        on_command: Callable[[bytes], None],
        on_block: Callable[[str, bytes], None],
        on_connected: Callable[[], None],
    ) -> None:
        self._site, self._device = site, device
        self._outbox = outbox
        self._read_access = read_access
        self._last_will = last_will
        self._on_desired = on_desired
        self._on_command = on_command
        self._on_block = on_block
        self._on_connected = on_connected
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._lost = asyncio.Event()
        self._connected = False
        self._unacked: dict[int, float] = {}
        self._in_paho: set[int] = set()
        self._client: mqtt.Client | None = None
        self.connects = 0

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us."""
        return self._connected

    def wake(self) -> None:
        """Something new is in the outbox."""
        self._wake.set()

    def reconnect(self) -> None:
        """Leave the broker and come back: there is a new certificate."""
        self._lost.set()
        self._wake.set()

    async def run(self) -> None:
        """Connect, send, and connect again for ever, with jittered exponential back-off."""
        delay = BACKOFF_SECONDS[0]
        while True:
            began = time.monotonic()
            try:
                await self._session()
                if time.monotonic() - began > STEADY_SECONDS:
                    delay = BACKOFF_SECONDS[0]
            except (OSError, ValueError, InvalidInputError) as error:
                log.warning("link failed error=%r retry_seconds=%.1f", str(error), delay)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(delay * 2, BACKOFF_SECONDS[1])

    async def close(self, farewell: bytes) -> None:
        """Publish the last state and disconnect."""
        client, self._client = self._client, None
        if client is None or not self._connected:
            return
        info = client.publish(self._topic(Channel.STATE, ""), farewell, qos=1, retain=True)
        with contextlib.suppress(ValueError, RuntimeError):
            await asyncio.to_thread(info.wait_for_publish, 2.0)
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)

    async def _session(self) -> None:
        """One connection, from connect until it is lost."""
        access, context = await asyncio.to_thread(self._read_access)
        client = self._make_client()
        if context is not None:
            client.tls_set_context(context)
        self._client = client
        self._lost.clear()
        await asyncio.to_thread(client.connect, access.host, access.port, KEEPALIVE_SECONDS)
        client.loop_start()
        try:
            await self._send_until_lost(client)
        finally:
            self._connected = False
            if self._client is client:
                client.disconnect()
                await asyncio.to_thread(client.loop_stop)

    def _make_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._device,
            clean_session=False,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(MAX_IN_FLIGHT)
        client.will_set(self._topic(Channel.STATE, ""), self._last_will(), qos=1, retain=True)
        client.on_connect = lambda c, u, flags, reason, p: self._tell(self._connect, reason)
        client.on_disconnect = lambda c, u, flags, reason, p: self._tell(self._disconnect, reason)
        client.on_publish = lambda c, u, mid, reason, p: self._tell(self._published, mid)
        client.on_message = lambda c, u, message: self._tell(
            self._message, message.topic, message.payload
        )
        return client

    async def _send_until_lost(self, client: mqtt.Client) -> None:
        self._unacked.clear()
        self._in_paho.clear()
        while not self._lost.is_set():
            self._wake.clear()
            if self._connected:
                self._send(client)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):  # wait_for can lose a cancellation (Python 3.11)
                    await self._wake.wait()

    def _send(self, client: mqtt.Client) -> None:
        now = time.monotonic()
        for row, sent in list(self._unacked.items()):
            if now - sent > RESEND_SECONDS:
                del self._unacked[row]
        room = min(MAX_IN_FLIGHT - len(self._in_paho), MAX_UNACKED - len(self._unacked))
        if room <= 0:
            return
        for outgoing in self._outbox.claim(room, set(self._unacked)):
            topic = self._topic(outgoing.channel, outgoing.model)
            retain = outgoing.channel in RETAINED_CHANNELS
            info = client.publish(topic, outgoing.payload, qos=1, retain=retain)
            if info.rc != mqtt.MQTT_ERR_SUCCESS:
                return
            self._unacked[outgoing.row] = now
            self._in_paho.add(info.mid)

    def fetch(self, request: bytes) -> bool:
        """Ask for blocks; whether the broker can be asked now. What is lost is asked for again."""
        client = self._client
        if client is None or not self._connected:
            return False
        topic = self._topic(Channel.FETCH, "")
        return bool(client.publish(topic, request, qos=0).rc == mqtt.MQTT_ERR_SUCCESS)

    def _topic(self, channel: Channel, model: str) -> str:
        name = ModelName(model) if channel in MODEL_CHANNELS else None
        return format_topic(Topic(self._site, self._device, channel, name))

    def _tell(self, handle: Callable[..., None], *values: object) -> None:
        """From paho's thread into the event loop; a loop that is closing hears no more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(handle, *values)

    def _connect(self, reason: ReasonCode) -> None:
        if reason.is_failure:
            log.warning("broker refused reason=%r", str(reason))
            self._lost.set()
        else:
            self.connects += 1
            self._connected = True
            log.info("connected connects=%d", self.connects)
            assert self._client is not None
            down = sorted(DOWN_CHANNELS - {Channel.BLOCKS}, key=lambda channel: channel.value)
            blocks = format_topic(Topic(self._site, self._device, Channel.BLOCKS, transfer="+"))
            self._client.subscribe([*((self._topic(one, ""), 1) for one in down), (blocks, 0)])
            self._on_connected()
        self._wake.set()

    def _disconnect(self, reason: ReasonCode) -> None:
        log.info("disconnected reason=%r", str(reason))
        self._connected = False
        self._lost.set()
        self._wake.set()

    def _published(self, mid: int) -> None:
        self._in_paho.discard(mid)
        if not self._in_paho:
            self._wake.set()

    def _message(self, topic: str, payload: bytes) -> None:
        try:
            parsed = parse_topic(topic)
            if parsed.channel is Channel.DESIRED:
                self._on_desired(payload)
            elif parsed.channel is Channel.COMMANDS:
                self._on_command(payload)
            elif parsed.channel is Channel.BLOCKS and parsed.transfer:
                self._on_block(parsed.transfer, payload)
            elif parsed.channel is Channel.ACKED and payload:
                self._acked(decode(Channel.ACKED, payload))
        except (InvalidInputError, InvalidMessageError) as error:
            log.warning("message refused topic=%r error=%r", topic, error.sentence)

    def _acked(self, acked: Acked) -> None:
        if acked.device == self._device and self._outbox.acknowledge(acked):
            stored = self._outbox.stored(self._unacked)
            self._unacked = {row: sent for row, sent in self._unacked.items() if row in stored}
            self._wake.set()
