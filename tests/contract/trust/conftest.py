"""A device's state folder, the owners of a repository, and a site that serves it or attacks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.prepare import prepare_state
from agent.trust import Trust, pin_root
from agent.updater.client import UpdaterError, ask_updater
from agent.updater.wire import (
    FetchRequest,
    Refreshed,
    RefreshRequest,
    Reply,
    Sources,
    Verified,
    VerifyCommandRequest,
    VerifyRequest,
)
from shoal.package import Package
from shoal.protocol.commands import Command, LogTail
from shoal.protocol.desired import Assignment, DesiredState
from shoal.protocol.envelope import COMMAND_TYPE, DESIRED_TYPE, encode_envelope
from shoal.signing import FileSigner, seal
from tests.contract.agent.conftest import assignment_of, make_release
from tests.contract.trust.owners import Owners

DEVICE = "gw-1"
START_SECONDS = 30.0


class Site:
    """A web server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.www = folder / "www"
        self.www.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("site.py")
        self._process = subprocess.Popen([sys.executable, str(script), str(folder)])
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "port").exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{(folder / 'port').read_text()}"

    def misbehave(self, path: str, kind: str, **more: Any) -> None:
        """From now on, below a path."""
        faults = [{"path": path, "kind": kind, **more}]
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def behave(self) -> None:
        """Serve honestly again."""
        (self.folder / "faults.json").unlink(missing_ok=True)

    def take_requests(self) -> list[str]:
        """What was asked for since the last call."""
        log = self.folder / "requests.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class TrustingDevice:
    """A device that asks its updater; every answer comes from the real process."""

    def __init__(self, folder: Path, director: FileSigner) -> None:
        self.folder = folder
        self.director = director
        self.sources = Sources(grace_seconds=20.0)
        self.sequence = 0

    async def refresh(self) -> Refreshed:
        reply = await ask_updater(RefreshRequest(str(self.folder), self.sources))
        assert isinstance(reply, Refreshed)
        return reply

    async def fetch(self, assignment: Assignment) -> Reply:
        facts: dict[str, str | int | float | bool] = {"runtimes": "tflite"}
        return await ask_updater(FetchRequest(str(self.folder), assignment, facts, self.sources))

    async def verify(self, envelope: bytes, floor: int = 0, may_refresh: bool = True) -> bytes:
        reply = await ask_updater(
            VerifyRequest(str(self.folder), DEVICE, floor, envelope, self.sources, may_refresh)
        )
        assert isinstance(reply, Verified)
        return reply.payload

    async def verify_command(self, envelope: bytes) -> bytes:
        reply = await ask_updater(
            VerifyCommandRequest(str(self.folder), DEVICE, envelope, self.sources)
        )
        assert isinstance(reply, Verified)
        return reply.payload

    def desired(
        self, *models: Assignment, signer: FileSigner | None = None, **changes: Any
    ) -> bytes:
        """A sealed desired state, each newer than the one before."""
        self.sequence += 1
        now = datetime.now(UTC)
        values = {
            "device": DEVICE,
            "sequence": self.sequence,
            "issued": now,
            "expires": now + timedelta(days=7),
            "models": list(models),
        } | changes
        payload = msgspec.json.encode(DesiredState(**values))
        return encode_envelope(seal(payload, DESIRED_TYPE, signer or self.director))

    def command(self, signer: FileSigner | None = None, **changes: Any) -> bytes:
        """A sealed command."""
        now = datetime.now(UTC)
        values = {
            "device": DEVICE,
            "command": "c-1",
            "issued": now,
            "expires": now + timedelta(hours=1),
            "order": LogTail(),
        } | changes
        payload = msgspec.json.encode(Command(**values))
        return encode_envelope(seal(payload, COMMAND_TYPE, signer or self.director))


async def refusal(asked: Awaitable[object]) -> UpdaterError:
    """The refusal that a request must end in."""
    with pytest.raises(UpdaterError) as caught:
        await asked
    return caught.value


def size_of(path: Path) -> int:
    """Of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


@pytest.fixture
def director() -> FileSigner:
    """The director's key."""
    return FileSigner.generate()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The controller's web server, or whoever stands in its place."""
    with contextlib.closing(Site(tmp_path / "site")) as site:
        yield site


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Site]:
    """A cache nearby."""
    with contextlib.closing(Site(tmp_path / "mirror")) as site:
        yield site


@pytest.fixture
def owners(site: Site, director: FileSigner) -> Owners:
    """Who holds the keys; they publish into the site's folder."""
    return Owners(site.www, director.public_key)


@pytest.fixture
def device(tmp_path: Path, site: Site, owners: Owners, director: FileSigner) -> TrustingDevice:
    """A freshly enrolled device."""
    folder = tmp_path / "state"
    prepare_state(folder)
    (folder / "trust.json").write_bytes(msgspec.json.encode(Trust(site.url)))
    pin_root(folder, owners.first_root)
    return TrustingDevice(folder, director)


@pytest.fixture
def release(director: FileSigner) -> Callable[..., Package]:
    """Makes packages: `release(3)`; who signs them as author does not matter to a device."""
    return lambda sequence, **changes: make_release(director, sequence, **changes)


@pytest.fixture
def assigned() -> Callable[..., Assignment]:
    """What a director would assign."""
    return assignment_of
