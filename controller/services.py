"""What every part of the controller is handed: the database, the settings, the clock, the keys."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, Engine, select

from controller import schema
from controller.artifacts import Artifacts
from controller.audit_check import ChainCheck
from controller.broker import Broker
from controller.config import Settings
from controller.drift.monitor import Monitor
from controller.identity.gate import Gate
from controller.identity.identities import Identities
from controller.metrics.process import ProcessMetrics
from controller.metrics.snapshot import Snapshots
from controller.overview import Overview
from controller.repository.director_key import DirectorKey
from controller.repository.keyring import Keyring
from controller.secret import derive
from shoal.signing import KeyVerifier, PublicKey

if TYPE_CHECKING:  # it imports an HTTP client, which few controllers need
    from controller.people.provider import Provider

RELEASE_KEYS = "release-keys"


class Announcer(Protocol):
    """Tells subscribers what changed."""

    @property
    def full(self) -> bool: ...
    def subscribe(self) -> AsyncIterator[str]: ...


class Bell:
    """Wakes a task of the event loop, from any thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def ring(self) -> None:
        """Wake whoever waits, now or next."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Return when it rings, at the latest after `seconds`."""
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()


def wall_clock_ms() -> int:
    """The machine's own clock."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Services:
    """Built once, in `app.build_services`."""

    settings: Settings
    engine: Engine
    director: DirectorKey
    broker_secret: bytes
    artifacts: Artifacts
    keyring: Keyring
    identities: Identities
    enrolment_gate: Gate = field(default_factory=Gate)
    """How often strangers may ask."""
    broker: Broker | None = None
    web_port: int = 0
    """The port really listened on."""
    desired_changed: Bell = field(default_factory=Bell)
    """An assignment may have changed."""
    rollouts_changed: Bell = field(default_factory=Bell)
    """A rollout was created or commanded."""
    announcer: Announcer | None = None
    provider: Provider | None = None
    """Where people may sign in, other than here."""
    drift_monitor: Monitor | None = None
    """Knows what each channel's standing is, where it runs in this process."""
    audit_check: ChainCheck = field(default_factory=ChainCheck)
    """How far the audit log's chain is checked, for all who look."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """The service is to end: streams close."""
    parts: dict[str, bool] = field(default_factory=dict)
    """Whether each part that runs beside the web server is up."""
    clock: Callable[[], int] = wall_clock_ms
    """Milliseconds since 1970 UTC; a simulation has its own."""
    metrics: ProcessMetrics = field(default_factory=ProcessMetrics)
    """What this process counts for Prometheus."""
    overview: Overview = field(init=False)
    """The whole fleet at a glance, for pages and streams together."""

    snapshots: Snapshots = field(init=False)
    """What the database says to Prometheus, for all scrapes together."""

    def __post_init__(self) -> None:
        self.overview = Overview(self)
        self.snapshots = Snapshots(self)

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self.clock()

    def release_verifier(self, connection: Connection) -> KeyVerifier:
        """Believes packages that enough trusted release keys signed."""
        return KeyVerifier(release_keys(connection), self.settings.release_threshold)

    def device_password(self, device: str, enrolled_ms: int) -> str:
        """A device's password at the broker; derived, so it is stored nowhere."""
        return derive(self.broker_secret, f"device|{device}|{enrolled_ms}")

    def account_password(self, account: str) -> str:
        """Password of one of the controller's own accounts."""
        return derive(self.broker_secret, f"controller|{account}")

    def broker_host(self) -> str:
        """How devices reach the broker."""
        return self.settings.broker.public_host or self.settings.broker.host

    def broker_port(self) -> int:
        """The port really listened on."""
        return self.broker.port if self.broker is not None else self.settings.broker.port

    @property
    def offline_after_ms(self) -> int:
        """Silence after which a device counts as offline."""
        return int(self.settings.offline_after_seconds * 1000)

    def public_url(self) -> str:
        """How devices reach us."""
        web = self.settings.web
        if web.public_url:
            return web.public_url.rstrip("/")
        host = "127.0.0.1" if web.host == "0.0.0.0" else web.host  # noqa: S104 - compared only
        return f"http://{host}:{self.web_port or web.port}{web.root_path}"


def release_keys(connection: Connection) -> list[PublicKey]:
    """Public keys whose signature makes a package a release."""
    query = select(schema.settings.c.value).where(schema.settings.c.key == RELEASE_KEYS)
    return [base64.b64decode(text) for text in connection.scalar(query) or []]
