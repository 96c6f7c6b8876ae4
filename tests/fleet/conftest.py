"""A controller with a real broker for each kind, and devices that tests enrol, feed and kill.

The controller is started once a broker kind and shared: every test plays with a device and a
model of its own name, and ends its agent. A test that needs only one kind asks for it with
`@pytest.mark.parametrize("fleet", ["nats"], indirect=True)`.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

from local_fleet.agents import AgentSpec  # noqa: E402 - lives in scripts/
from local_fleet.fleet import LocalFleet  # noqa: E402
from local_fleet.memory import children  # noqa: E402

from controller.broker import KINDS  # noqa: E402
from shoal.package import Package, file_entries, make_package, write_package  # noqa: E402
from shoal.protocol.manifest import (  # noqa: E402
    Contract,
    Feature,
    Manifest,
    OutputField,
    Probation,
    RawOutputs,
    Variant,
)
from shoal.signing import Signer  # noqa: E402
from shoal.tflite.writer import Dense, write_float32  # noqa: E402

WAIT_SECONDS = 150.0
"""Generous: the machine may be busy. Nothing here is judged by its time."""

Document = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs a fleet."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.fleet)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session", params=list(KINDS))
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalFleet]:
    """A running controller on each kind of broker; it must be well after every test."""
    folder = tmp_path_factory.mktemp(f"fleet-{request.param}")
    with LocalFleet(folder, broker=str(request.param)) as running:
        running.start_controller()
        yield running


def echo_package(model: str, *signers: Signer, sequence: int = 1) -> Package:
    """A model that answers with its input, so that every answer names its row."""
    files = {"model.tflite": write_float32([Dense(np.eye(2, dtype="f4"), np.zeros(2, "f4"))])}
    names = ["number", "half"]
    manifest = Manifest(
        model=model,
        version=f"{sequence}.0.0",
        sequence=sequence,
        created="2026-01-01T00:00:00+00:00",
        files=file_entries(files),
        variants=[Variant(name="only", file="model.tflite")],
        contract=Contract(
            features=[Feature(name=name) for name in names],
            outputs=[OutputField(name=name) for name in names],
            postprocess=[RawOutputs(fields=names)],
        ),
        probation=Probation(max_latency_ratio=1000.0),  # the machine may be busy
    )
    return make_package(manifest, files, *signers)


@dataclass
class Player:
    """One device of a test: enrolled, running or killed, and what the API says about it."""

    fleet: LocalFleet
    device: str
    models: list[str] = field(default_factory=list)
    since_ms: int = 0
    """Windows that began before are left out: those of other bindings."""

    @property
    def pid(self) -> int:
        """Process id of its agent."""
        return self.fleet.children[self.device].pid

    def enrol(self, models: dict[str, Any]) -> None:
        """Make the device known, with these bindings of models to sources."""
        spec = AgentSpec(self.device, "plant", models=models, health_seconds=1.0)
        self.fleet.enrol([spec])
        self.models = list(models)

    def reconfigure(self, models: dict[str, Any]) -> None:
        """Give it other bindings; takes effect when its agent starts."""
        spec = AgentSpec(self.device, "plant", models=models, health_seconds=1.0)
        self.fleet.find_agents([spec])
        self.since_ms = time.time_ns() // 1_000_000

    def start(self) -> None:
        """Start its agent and wait until the controller sees it online."""
        boots = len(self.boots())
        self.fleet.start_agent(self.device)
        self.wait(lambda: len(self.boots()) > boots and self.now()["online"], "online")

    def run(self, *packages: Package) -> None:
        """Publish releases and roll them out to this device alone, to their end."""
        for package in packages:
            manifest = package.manifest
            path = self.fleet.folder / f"{manifest.model}-{manifest.version}.shoal"
            write_package(package, path)
            self.fleet.release(path)
            created = self.fleet.client.create_rollout(
                {
                    "model": manifest.model,
                    "version": manifest.version,
                    "selector": f"device:{self.device}",
                    "waves": [{"name": "all", "share": 1.0}],
                    "soak_seconds": 0.5,
                    "probation_seconds": 1.0,
                    "gates": {"max_latency_ratio": 1000.0},  # the machine may be busy
                }
            )
            ended = self.fleet.client.wait_for_rollout(created["rollout"], timeout=WAIT_SECONDS)
            assert ended["state"] == "succeeded", ended["reason"]

    def now(self) -> Document:
        """The device as the API shows it."""
        return self.fleet.client.device(self.device)

    def windows(self) -> list[Document]:
        """All its windows, the oldest first."""
        found = self.fleet.client.windows(self.device, limit=1000)
        assert len(found) < 1000
        return [one for one in found[::-1] if one["start_ms"] >= self.since_ms]

    def events(self, kind: str) -> list[Document]:
        """Its events of a kind, the newest first."""
        found = self.fleet.client.device_events(self.device, limit=1000)
        return [one for one in found if one["kind"] == kind]

    def total(self, count: str) -> int:
        """A count summed over all windows; of dropped and failed the sum of their reasons."""
        counts = [one[count] for one in self.windows()]
        return sum(sum(one.values()) if isinstance(one, dict) else one for one in counts)

    def boots(self) -> dict[str, list[list[int]]]:
        """Sequence numbers of each boot that are committed, as ranges."""
        rows = self.query("SELECT boot_id, ranges FROM device_boots WHERE device = ?")
        return dict(rows)

    def answers(self) -> list[float]:
        """Output `number` of every prediction that is stored, in the order they were stored."""
        rows = self.query(
            "SELECT id, json_extract(\"values\", '$.number') FROM predictions WHERE device = ?"
            " ORDER BY id"
        )
        return [number for _, number in rows]

    def query(self, text: str) -> list[tuple[Any, Any]]:
        """Look into the controller's database, for what no page of the API shows."""
        path = self.fleet.controller.folder / "shoal.sqlite"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = connection.execute(text, (self.device,)).fetchall()
        return [(key, _plain(value)) for key, value in rows]

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
        """Wait for something about this device; no process may die meanwhile."""
        return self.fleet.wait_for(lambda: condition() or None, seconds, f"{self.device} {what}")

    def wait_until_settled(self) -> None:
        """Wait until its source has ended and the controller has all that it sent."""
        self.wait(
            lambda: (
                len([one for one in self.events("pipeline") if one["code"] == "source-ended"])
                >= len(self.models)
            ),
            "has read its sources to their end",
        )
        after = time.time_ns() // 1_000_000 + 1500  # the window that was open then is closed
        self.wait(
            lambda: (
                (self.now()["health"] or {}).get("outbox_rows", 1) <= 1  # itself
                and (self.now()["health"] or {}).get("ts_ms", 0) > after
            ),
            "has nothing left to send",
        )

    def worker_pid(self) -> int:
        """Process id of the one model worker of its agent: a child of its forkserver."""

        def find() -> list[int]:
            found = [one for child in children(self.pid) for one in children(child)]
            return found if len(found) == 1 else []

        return int(self.wait(find, "has one worker")[0])

    def stop(self) -> None:
        """End its agent if it runs, orderly."""
        self.fleet.stop_agent(self.device)


def _plain(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


@pytest.fixture
def player(fleet: LocalFleet, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Player]]:
    """Makes the devices of a test and ends their agents after it."""
    made: list[Player] = []

    def make(name: str) -> Player:
        made.append(Player(fleet, name))
        return made[-1]

    yield make
    for one in made:
        one.stop()
    fleet.wait_for(
        lambda: fleet.client.health()["status"] == "ok" or None, WAIT_SECONDS, "the fleet is well"
    )


@pytest.fixture(scope="session")
def make_echo_package() -> Callable[..., Package]:
    """See `echo_package`."""
    return echo_package


@pytest.fixture
def write_numbers(tmp_path: Path) -> Callable[[int], Path]:
    """Writes a CSV whose rows hold their own number, counted from 0."""

    def write(rows: int) -> Path:
        path = tmp_path / f"{rows}-rows.csv"
        lines = (f"{i},{i / 2}\n" for i in range(rows))
        path.write_text("number,half\n" + "".join(lines), encoding="ascii")
        return path

    return write
