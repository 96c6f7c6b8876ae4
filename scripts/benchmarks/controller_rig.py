"""The whole controller beside a broker and an enrolled, simulated fleet."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from local_fleet import processes
from local_fleet.controller import Controller
from local_fleet.memory import tree
from local_fleet.ports import HOST

from benchmarks.ingest_rig import SCRIPTS, enrol_simulated
from benchmarks.rollout_rig import make_release, sign_off
from controller.app import build_services
from controller.broker import (
    DIRECTOR_ACCOUNT,
    INGEST_ACCOUNT,
    EmbeddedBroker,
    choose_kind,
)
from controller.config import load_settings
from shoal.client import Client
from shoal.package import write_package
from shoal.signing import FileSigner

CONNECTIONS = 16
PASSWORD = "p" * 32
PERIOD_SECONDS = 60.0
FIRST_SECONDS = 60.0
RELEASED_SECONDS = 300.0
AGENT_CONNECTIONS = 4


@dataclass(slots=True)
class ControllerRig:
    """A running controller, the processes that make it up, and a client of its API."""

    folder: Path
    port: int
    client: Client
    pids: list[int]
    """Web server and ingest."""
    broker_pid: int
    database: Path
    signer: FileSigner
    """Its release key."""

    @property
    def logins(self) -> list[tuple[str, str]]:
        """Accounts that may publish for every device."""
        return [(f"controller_load{number}", PASSWORD) for number in range(CONNECTIONS)]

    @property
    def probe_login(self) -> tuple[str, str]:
        """One more of them, which no load uses."""
        return f"controller_load{CONNECTIONS}", PASSWORD

    def cpu_seconds(self) -> float:
        """Processor time of controller and broker since they started."""
        found = 0.0
        for pid in [*self.pids, self.broker_pid]:
            times = psutil.Process(pid).cpu_times()
            found += times.user + times.system
        return found

    def rss_bytes(self) -> int:
        """Resident sets of the controller's processes, the broker's not among them."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids)

    def committed(self) -> int:
        """Telemetry rows in the database; ids are dense, so no table is scanned."""
        query = "SELECT (SELECT COALESCE(MAX(id), 0) FROM health) + COALESCE(MAX(id), 0)"
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            count: int = connection.execute(f"{query} FROM statistics").fetchone()[0]
        return count

    def package(self, sequence: int) -> Path:
        """A signed package of the model that rollouts move."""
        path = self.folder / f"{sequence}.shoal"
        write_package(make_release(self.signer, sequence), path)
        return path

    def release(self, sequence: int) -> None:
        """Publish it, so that it can be assigned."""
        self.client.push_release(self.package(sequence))
        row = sign_off(sequence) | {"signers": "[]"}
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        with closing(sqlite3.connect(self.database, timeout=30)) as connection, connection:
            statement = f"INSERT INTO published_releases ({names}) VALUES ({marks})"  # noqa: S608 - our names
            connection.execute(statement, tuple(row.values()))

    def wait_succeeded(self, rollout: str, devices: int) -> None:
        """Return when so many devices run the release of a rollout."""
        query = "SELECT COUNT(*) FROM executions WHERE rollout = ? AND state = 'succeeded'"
        deadline, count = time.monotonic() + RELEASED_SECONDS, 0
        while count < devices:
            if time.monotonic() > deadline:
                raise RuntimeError(f"rollout {rollout}: {count} of {devices} devices in time")
            time.sleep(0.1)
            count = self._count(query, rollout)

    @contextmanager
    def agents(self, devices: int) -> Iterator[None]:
        """Agents that take every release at once, until the block ends."""
        document = {
            "host": HOST,
            "port": self.port,
            "logins": self.logins[:AGENT_CONNECTIONS],
            "boot_id": "agents",
            "devices": devices,
        }
        plan = self.folder / "agents.json"
        plan.write_text(json.dumps(document), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.agents_load", str(plan)]
        child = processes.start("agents", command, self.folder, {"PYTHONPATH": str(SCRIPTS)})
        query = "SELECT COUNT(*) FROM devices WHERE online"
        try:
            processes.wait_until(
                lambda: self._count(query) == devices or None,
                FIRST_SECONDS,
                "every device is there",
                child,
            )
            yield
            if not child.running:
                raise RuntimeError(f"agents: ended by themselves\n{child.tail()}")
        finally:
            processes.stop([child])

    def _count(self, query: str, *values: str) -> int:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            found: int = connection.execute(query, values).fetchone()[0]
        return found

    @contextmanager
    def load(
        self, boot_id: str, devices: int, period_seconds: float, first: int = 0
    ) -> Iterator[None]:
        """A fleet that talks until the block ends; ingest has taken up work when it begins."""
        plan = self.folder / "fleet.json"
        document = {
            "host": HOST,
            "port": self.port,
            "logins": self.logins[: max(1, min(CONNECTIONS, devices))],
            "boot_id": boot_id,
            "first": first,
            "devices": devices,
            "period_seconds": period_seconds,
        }
        plan.write_text(json.dumps(document), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.fleet_load", str(plan)]
        child = processes.start("load", command, self.folder, {"PYTHONPATH": str(SCRIPTS)})
        before = self.committed()
        try:
            processes.wait_until(
                lambda: self.committed() > before or None,
                FIRST_SECONDS,
                "rows are committed",
                child,
            )
            yield
            if not child.running:
                raise RuntimeError(f"load: ended by itself\n{child.tail()}")
        finally:
            processes.stop([child])


@asynccontextmanager
async def controller_rig(device_count: int) -> AsyncIterator[ControllerRig]:
    """A controller that serves, with `device_count` devices in its database."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as text:
        folder = Path(text)
        controller = Controller.choose(folder / "controller", "external", None, plain=True)
        signer = FileSigner.generate()
        await asyncio.to_thread(controller.init, signer.public_key)
        services = build_services(load_settings(controller.config))
        enrol_simulated(services, device_count)
        own = {name: services.account_password(name) for name in (INGEST_ACCOUNT, DIRECTOR_ACCOUNT)}
        load = {f"controller_load{number}": PASSWORD for number in range(CONNECTIONS + 1)}
        database = services.settings.data_dir / "shoal.sqlite"
        services.engine.dispose()
        broker = EmbeddedBroker(choose_kind(), folder / "broker", HOST, controller.broker_port)
        await broker.set_accounts({}, own | load)
        await broker.start()
        child = controller.start(folder / "logs")
        client = Client(controller.url, controller.operator_token())
        try:
            await asyncio.to_thread(controller.wait_ready, child, client)
            assert broker.pid is not None
            pids = tree(child.pid)
            yield ControllerRig(folder, broker.port, client, pids, broker.pid, database, signer)
        finally:
            client.close()
            await asyncio.to_thread(processes.stop, [child])
            await broker.stop()


@dataclass(frozen=True, slots=True)
class Interval:
    """What some seconds of work cost."""

    cores: float
    cpu_us_per_message: float
    rss_bytes: int


def measure(rig: ControllerRig, seconds: float, runs: int) -> list[Interval]:
    """Look at `runs` intervals in a row."""
    found = []
    for _ in range(runs):
        cpu, rows, started = rig.cpu_seconds(), rig.committed(), time.monotonic()
        time.sleep(seconds)
        cpu, rows = rig.cpu_seconds() - cpu, rig.committed() - rows
        if not rows:
            raise RuntimeError(f"controller: committed nothing in {seconds:g} s")
        found.append(
            Interval(cpu / (time.monotonic() - started), 1e6 * cpu / rows, rig.rss_bytes())
        )
    return found
