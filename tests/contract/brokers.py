"""A real broker for every test that asks for `broker`, once for each kind, and MQTT peers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from paho.mqtt.enums import CallbackAPIVersion

from controller.broker import DIRECTOR_ACCOUNT, INGEST_ACCOUNT, KINDS, EmbeddedBroker
from controller.config import load_settings
from controller.identity.authority import Authority
from controller.identity.identities import Identities, load_identities, make_missing
from controller.identity.logins import client_context
from shoal.signing import FileSigner

DEVICES = ("gw-1", "gw-2", "gw-3")
WAIT_SECONDS = 10.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Received:
    """One message as a peer got it."""

    topic: str
    payload: bytes
    retained: bool


class Peer:
    """An MQTT 3.1.1 client whose events can be awaited. Its network thread is paho's."""

    def __init__(
        self, context: ssl.SSLContext | None, client_id: str, clean: bool, manual: bool
    ) -> None:
        self.messages: asyncio.Queue[Received] = asyncio.Queue()
        self.connections: asyncio.Queue[tuple[bool, bool]] = asyncio.Queue()
        """(accepted, session was present) of every CONNACK."""
        self.disconnections: asyncio.Queue[str] = asyncio.Queue()
        self.subscriptions: asyncio.Queue[bool] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._came_in = False
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean,
            protocol=mqtt.MQTTv311,
            manual_ack=manual,
        )
        if context is not None:
            self.client.tls_set_context(context)
        self.client.reconnect_delay_set(min_delay=1, max_delay=1)
        self.client.on_connect = lambda _c, _u, flags, code, _p: self._connack(
            not code.is_failure, flags.session_present
        )
        self.client.on_disconnect = lambda _c, _u, _f, code, _p: self._lost(str(code))
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self._put(
            self.subscriptions, not any(code.is_failure for code in codes)
        )
        self.client.on_message = lambda _c, _u, one: self._put(
            self.messages, Received(one.topic, one.payload, one.retain)
        )

    async def connect(self, host: str, port: int) -> bool:
        """Connect; return whether the broker had a session. Raises when it refuses."""
        try:
            await asyncio.to_thread(self.client.connect, host, port, 30)
        except ssl.SSLError as error:
            raise PermissionError(f"the broker refused the login: {error}") from error
        self.client.loop_start()
        return await self.connected()

    async def connected(self) -> bool:
        """Wait for the next CONNACK; return whether the broker had a session."""
        accepted, present = await self._next(self.connections)
        if not accepted:
            raise PermissionError("the broker refused the login")
        return present

    async def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish with QoS 1 and wait for the PUBACK."""
        info = self.client.publish(topic, payload, qos=1, retain=retain)
        await asyncio.to_thread(info.wait_for_publish, WAIT_SECONDS)
        if not info.is_published():
            raise TimeoutError(f"no PUBACK for {topic}")

    async def subscribe(self, *filters: str) -> bool:
        """Subscribe with QoS 1; return whether every filter was granted."""
        self.client.subscribe([(one, 1) for one in filters])
        return await self._next(self.subscriptions)

    async def receive(self, seconds: float = WAIT_SECONDS) -> Received:
        """The next message; raises `TimeoutError`."""
        return await self._next(self.messages, seconds)

    async def disconnected(self) -> str:
        """Wait until the connection is gone; return the reason."""
        return await self._next(self.disconnections)

    def cut(self) -> None:
        """Break the connection without a DISCONNECT; paho reconnects a second later."""
        connection = self.client.socket()
        assert connection is not None
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Disconnect and end the network thread."""
        self.client.disconnect()
        self.client.loop_stop()

    def _connack(self, accepted: bool, present: bool) -> None:
        self._came_in |= accepted
        self._put(self.connections, (accepted, present))

    def _lost(self, reason: str) -> None:
        """With TLS 1.3 a certificate is refused by breaking the connection, not by a CONNACK."""
        if not self._came_in:
            self._put(self.connections, (False, False))
        self._put(self.disconnections, reason)

    async def _next(self, queue: asyncio.Queue[_T], seconds: float = WAIT_SECONDS) -> _T:
        return await asyncio.wait_for(queue.get(), seconds)

    def _put(self, queue: asyncio.Queue[_T], item: _T) -> None:
        with contextlib.suppress(RuntimeError):  # a late event after the test's loop has closed
            self._loop.call_soon_threadsafe(queue.put_nowait, item)


OWN = dict.fromkeys((INGEST_ACCOUNT, DIRECTOR_ACCOUNT), "unused-with-certificates")
"""The controller's accounts."""


def known(*names: str) -> dict[str, str]:
    """Devices as `set_accounts` takes them; with certificates no password is looked at."""
    return dict.fromkeys(names, "unused-with-certificates")


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    """Both authorities of a controller."""
    path = tmp_path / "identities.toml"
    path.write_text('data_dir = "identities"\n')
    settings = load_settings(path)
    settings.data_dir.mkdir()
    make_missing(settings)
    return load_identities(settings)


@pytest.fixture(params=list(KINDS))
def broker_kind(request: pytest.FixtureRequest) -> str:
    """mosquitto, then nats."""
    return str(request.param)


@pytest.fixture
async def broker(
    broker_kind: str, identities: Identities, tmp_path: Path
) -> AsyncIterator[EmbeddedBroker]:
    """A running broker as the controller configures it, with three devices."""
    running = EmbeddedBroker(broker_kind, tmp_path / "broker", identities=identities)
    await running.set_accounts(known(*DEVICES), OWN)
    await running.start()
    yield running
    await running.stop()


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate with its key, as TLS uses it."""

    context: ssl.SSLContext
    serial: str
    pair: bytes
    """Key and certificate, PEM."""


Hold = Callable[..., Held]


@pytest.fixture
def hold(identities: Identities, tmp_path: Path) -> Hold:
    """`hold("gw-1", authority=None, days=1.0)`: a certificate of that name, by the fleet CA."""
    numbers = itertools.count()

    def make(name: str, authority: Authority | None = None, days: float = 1.0) -> Held:
        key = FileSigner.generate()
        public = Ed25519PublicKey.from_public_bytes(key.public_key)
        issued = (authority or identities.fleet).issue_client(
            name, public, datetime.now(UTC), timedelta(days=days)
        )
        path = tmp_path / f"held-{next(numbers)}.pem"
        pair = key.private_pem() + issued.chain
        path.write_bytes(pair)
        authorities = identities.controller_authority().decode()
        return Held(client_context(authorities, path), issued.serial, pair)

    return make


Connect = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def connect(broker: EmbeddedBroker, identities: Identities) -> AsyncIterator[Connect]:
    """Connects peers to `broker`: `await connect("gw-1", clean=True, will=None, …)`."""
    peers: list[Peer] = []

    async def make(
        name: str,
        *,
        context: ssl.SSLContext | None = None,
        port: int | None = None,
        client_id: str | None = None,
        clean: bool = True,
        manual_ack: bool = False,
        will: tuple[str, bytes] | None = None,
    ) -> Peer:
        own = name.startswith("controller_")
        if context is None:
            context = identities.login(name) if own else identities.stand_in(name)
        peer = Peer(context, client_id or name, clean, manual_ack)
        if will is not None:
            peer.client.will_set(*will, qos=1, retain=True)
        peers.append(peer)
        await peer.connect(broker.host, port or (broker.controller_port if own else broker.port))
        return peer

    yield make
    await asyncio.gather(*(asyncio.to_thread(peer.close) for peer in peers))
