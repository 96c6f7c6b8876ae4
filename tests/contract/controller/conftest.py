"""The real ingest process and director between a real broker and a real database."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from controller import schema
from controller.app import build_services
from controller.broker import DIRECTOR_ACCOUNT, INGEST_ACCOUNT, EmbeddedBroker
from controller.config import load_settings
from controller.database import reading, writing
from controller.identity import certificates
from controller.identity.identities import Identities
from controller.identity.logins import client_context
from controller.services import Services
from controller.setup import initialise
from shoal.protocol.messages import Window, encode
from shoal.signing import FileSigner

DEVICES = ("gw-1", "gw-2", "gw-3")
WAIT_SECONDS = 40.0

# The process dies by SIGKILL as soon as it calls what the first argument names.
DYING = """
import os, sys
import controller.ingest.__main__ as ingest
def die(*_, **__):
    os.kill(os.getpid(), 9)
where = sys.argv.pop(1)
name = "write_batch" if where == "before the commit" else "_acknowledge"
assert hasattr(ingest, name), name
setattr(ingest, name, die)
ingest.main()
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A controller's folder with three enrolled devices at jfk."""
    path = tmp_path / "controller.toml"
    path.write_text('data_dir = "data"\n')
    settings = load_settings(path)
    initialise(settings)
    services = build_services(settings)
    enrol(services, *DEVICES)
    yield services
    services.engine.dispose()


def enrol(services: Services, *names: str) -> None:
    """Devices as enrolment leaves them."""
    rows = [
        {"device": name, "site": "jfk", "public_key": b"k" * 32, "enrolled_ms": 1} for name in names
    ]
    with writing(services.engine) as connection:
        connection.execute(insert(schema.devices), rows)


@pytest.fixture
def held_by(tmp_path: Path) -> Callable[[Services, str], ssl.SSLContext]:
    """`held_by(services, "gw-1")`: TLS with a certificate issued as enrolment issues them."""

    def make(services: Services, device: str) -> ssl.SSLContext:
        key = FileSigner.generate()
        with writing(services.engine) as connection:
            chain = certificates.issue(
                connection, services.identities.fleet, device, key.public_key,
                services.now_ms(), 1.0,
            )  # fmt: skip
        path = tmp_path / f"{device}.pem"
        path.write_bytes(key.private_pem() + chain)
        return client_context(services.identities.controller_authority().decode(), path)

    return make


@pytest.fixture
def identities(services: Services) -> Identities:
    """Those of this controller, which its own processes log in with."""
    for name in (INGEST_ACCOUNT, DIRECTOR_ACCOUNT):
        services.identities.make_login(name)
    return services.identities


class Process:
    """`controller.ingest` as the controller starts it; its log is read as it grows."""

    def __init__(self, services: Services, broker: EmbeddedBroker, log: Path) -> None:
        self._services = services
        self._broker = broker
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> str:
        """What all processes wrote so far."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        assert self._process.returncode is None
        return self._process.pid

    async def start(self, dies: str = "") -> None:
        """Start it and wait until it is subscribed; `dies` names where it kills itself."""
        connected = self.log.count("event=connected") if self._log.exists() else 0
        command = ["-c", DYING, dies] if dies else ["-m", "controller.ingest"]
        settings = self._services.settings
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--config", str(settings.path),
                "--host", self._broker.controller_host,
                "--port", str(self._broker.controller_port),
                stderr=log,
            )  # fmt: skip
        await eventually(lambda: self.log.count("event=connected") > connected or self._died())

    async def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, 9)
        await self.ended()

    async def ended(self) -> int:
        """Wait until it is gone."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), WAIT_SECONDS)

    async def stop(self) -> None:
        """End what still runs, in order."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self.ended()

    def _died(self) -> bool:
        return self._process is not None and self._process.returncode is not None


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - another process changes what is looked at
            await asyncio.sleep(0.02)


@pytest.fixture
async def ingest(
    services: Services, broker: EmbeddedBroker, tmp_path: Path
) -> AsyncIterator[Process]:
    """The ingest process, running."""
    process = Process(services, broker, tmp_path / "ingest.log")
    await process.start()
    yield process
    await process.stop()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], object]:
    """`await until(lambda: …)`."""
    return eventually


@pytest.fixture
def count(services: Services) -> Callable[..., int]:
    """Rows of a table."""

    def of(table: object = schema.windows) -> int:
        with reading(services.engine) as connection:
            return connection.scalar(select(func.count()).select_from(table)) or 0  # type: ignore[arg-type]  # any table

    return of


@pytest.fixture
def window() -> Callable[..., bytes]:
    """`window(7)`: a window message of gw-1; its sequence is its start, too."""

    def make(seq: int, device: str = "gw-1", boot_id: str = "b1") -> bytes:
        return encode(
            Window(
                device=device, site="jfk", boot_id=boot_id, seq=seq, ts_ms=seq, model="pump",
                version="1", release_sequence=1, manifest="0" * 64, start_ms=seq, end_ms=seq,
                in_count=1, ok=1,
            )
        )  # fmt: skip

    return make
