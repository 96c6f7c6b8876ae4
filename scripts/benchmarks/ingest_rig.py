"""A broker, an enrolled simulated fleet and the real ingest process, without the rest.

The broker and the database are those the controller makes; devices are put into the database as
enrolment would. Loads come from `mqtt_load`, a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_fleet import processes
from local_fleet.controller import Controller
from local_fleet.ports import HOST
from sqlalchemy import insert

from controller.app import build_services
from controller.broker import INGEST_ACCOUNT, EmbeddedBroker, choose_kind
from controller.config import load_settings
from controller.database import writing
from controller.schema import devices as device_table
from controller.services import Services
from shoal.signing import FileSigner

SCRIPTS = Path(__file__).resolve().parents[1]
READY_SECONDS = 30.0
DONE_SECONDS = 300.0
POLL_SECONDS = 0.01
IN_FLIGHT = 20
"""As an agent has."""


@dataclass(frozen=True, slots=True)
class Rig:
    """Where everything is."""

    folder: Path
    controller: Controller
    services: Services
    port: int
    passwords: dict[str, str]
    """Of each device."""

    @property
    def ingest_password(self) -> str:
        """Of the account that may read everything."""
        return self.services.account_password(INGEST_ACCOUNT)

    def write_plan(self, messages: dict[str, list[list[str]]]) -> Path:
        """Write a load for `mqtt_load`: one connection a device."""
        path = self.folder / "plan.json"
        clients = [
            {"id": name, "username": name, "password": self.passwords[name], "messages": own}
            for name, own in messages.items()
        ]
        plan = {"host": HOST, "port": self.port, "in_flight": IN_FLIGHT, "clients": clients}
        path.write_text(json.dumps(plan), encoding="utf-8")
        return path

    def committed(self) -> int:
        """Telemetry rows in the database; ids are dense, so no table is scanned."""
        path = self.services.settings.data_dir / "shoal.sqlite"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            counts = [
                connection.execute(f"SELECT COALESCE(MAX(id), 0) FROM {table}").fetchone()[0]  # noqa: S608 - our names
                for table in ("health", "statistics")
            ]
        connection.close()
        return sum(counts)

    def wait_committed(self, count: int) -> float:
        """Return the time at which so many rows were committed."""
        deadline = time.time() + DONE_SECONDS
        while (got := self.committed()) < count:
            if time.time() > deadline:
                raise RuntimeError(f"ingest: {got} of {count} rows after {DONE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        return time.time()

    @contextmanager
    def ingest(self) -> Iterator[None]:
        """Run the ingest process until the block ends; it is subscribed when the block begins."""
        options = ["--config", str(self.controller.config), "--host", HOST]
        command = [sys.executable, "-m", "controller.ingest", *options, "--port", str(self.port)]
        child = processes.start("ingest", command, self.folder)
        try:
            processes.wait_until(
                lambda: b"event=connected" in child.log.read_bytes() or None,
                READY_SECONDS,
                "ingest is connected",
                child,
            )
            yield
        finally:
            processes.stop([child])
            child.log.unlink()


@asynccontextmanager
async def ingest_rig(device_count: int, broker: str = "auto") -> AsyncIterator[Rig]:
    """A broker that runs, and a database with `device_count` devices."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as text:
        folder = Path(text)
        controller = Controller.choose(folder / "controller", "external", None, plain=True)
        await asyncio.to_thread(controller.init, FileSigner.generate().public_key)
        services = build_services(load_settings(controller.config))
        passwords = enrol_simulated(services, device_count)
        server = EmbeddedBroker(choose_kind(broker), folder / "broker", HOST)
        await server.set_accounts(
            passwords, {INGEST_ACCOUNT: services.account_password(INGEST_ACCOUNT)}
        )
        await server.start()
        try:
            yield Rig(folder, controller, services, server.port, passwords)
        finally:
            await server.stop()
            services.engine.dispose()


def enrol_simulated(services: Services, count: int) -> dict[str, str]:
    """Put devices into the database; return their passwords at the broker."""
    now_ms = services.now_ms()
    rows: list[dict[str, Any]] = [
        {
            "device": f"device-{number}",
            "site": "bench",
            "public_key": b"\0" * 32,
            "enrolled_ms": now_ms,
        }
        for number in range(count)
    ]
    with writing(services.engine) as connection:
        connection.execute(insert(device_table), rows)
    return {row["device"]: services.device_password(row["device"], now_ms) for row in rows}


def run_load(plan: Path) -> dict[str, float]:
    """Send a load to its end; return when it started and ended, and how many were acknowledged."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mqtt_load", str(plan)],
        cwd=SCRIPTS,
        check=True,
        capture_output=True,
        text=True,
        timeout=DONE_SECONDS,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found
