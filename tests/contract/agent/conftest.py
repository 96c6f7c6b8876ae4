"""A device without a broker: real slots, workers, updater and outbox, and a repository by HTTP.

The network of a release multiplies its two inputs by `gain`, so an answer says who gave it.
`Device` also runs in a process of its own (`run_until_killed`), to be killed at a chosen step.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.clock import Clock
from agent.config import OutboxLimits
from agent.crashloop import CrashLimits
from agent.manager import ModelManager
from agent.pipeline import WorkerPipeline
from agent.ports import Answers
from agent.prepare import prepare_state
from agent.reporter import Identity, Reporter
from agent.slots import Slots
from agent.sources import open_source
from agent.spool import Spool
from agent.state_files import open_database
from agent.store import StateStore
from agent.trust import Trust, pin_root
from agent.update_settings import UpdateSettings
from agent.updates import Updates
from agent.workers.pool import ForkserverPool, PoolOptions
from shoal.ids import DeviceId, SiteId
from shoal.package import Package, file_entries, make_package
from shoal.protocol.desired import Assignment
from shoal.protocol.manifest import (
    Contract,
    Feature,
    Golden,
    Manifest,
    OutputField,
    Probation,
    RawOutputs,
    Threshold,
    Variant,
)
from shoal.protocol.topics import Channel
from shoal.signing import FileSigner
from shoal.tflite.writer import Dense, write_float32
from tests.contract.trust.owners import Owners

WAIT_SECONDS = 60.0
MODEL = "echo"


def make_release(
    signer: FileSigner,
    sequence: int,
    gain: float = 1.0,
    golden_gain: float | None = None,
    padding: int = 0,
    **changes: Any,
) -> Package:
    """A release whose golden samples expect `golden_gain` (what the model does, unless given).

    Their file is `padding` bytes longer than it need be."""
    layer = Dense(np.eye(2, dtype=np.float32) * np.float32(gain), np.zeros(2, "f4"))
    wanted = gain if golden_gain is None else golden_gain
    samples = {"inputs": [[1.0, 2.0], [3.0, 4.0]]}
    samples["outputs"] = [[value * wanted for value in one] for one in samples["inputs"]]
    files = {
        "model.tflite": write_float32([layer]),
        "golden.json": json.dumps(samples).encode() + b" " * padding,
    }
    values = {
        "probation": Probation(
            seconds=0.2,
            min_rows=20,
            max_failed_ratio=0.5,
            max_crashes=2,
            max_latency_ratio=1e9,  # a busy machine is no fault of a release
            max_memory_ratio=1e9,
        ),
        "deadline_ms": 5000.0,
        "golden": Golden(file="golden.json"),
        "variants": [Variant(name="only", file="model.tflite")],
        **changes,
    }
    manifest = Manifest(
        model=MODEL,
        version=f"{sequence}.0.0",
        sequence=sequence,
        created="2026-01-01T00:00:00+00:00",
        files=file_entries(files),
        contract=Contract(
            features=[Feature(name="a"), Feature(name="b")],
            outputs=[OutputField(name="x", low=0, high=1000), OutputField(name="y")],
            postprocess=[RawOutputs(fields=["x", "y"]), Threshold(field="x", above=500.0)],
        ),
        **values,
    )
    return make_package(manifest, files, signer)


class Repository:
    """What a controller serves: releases and files, over HTTP."""

    def __init__(self, folder: Path) -> None:
        self.signer = FileSigner.generate()
        self.owners = Owners(folder, self.signer.public_key)
        self.requests: list[str] = []
        requests = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                requests.append(self.path)

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=str(folder))
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, sequence: int, gain: float = 1.0, **changes: Any) -> Package:
        """Make a release and serve it."""
        package = make_release(self.signer, sequence, gain, **changes)
        return self.owners.release(package)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def assignment_of(package: Package, **changes: Any) -> Assignment:
    """What a director would assign."""
    values = {
        "model": MODEL,
        "version": package.manifest.version,
        "release_sequence": package.manifest.sequence,
        "manifest_sha256": package.manifest_sha256,
        "manifest_length": len(package.manifest_bytes),
        "rollout": f"r-{package.manifest.sequence}",
        **changes,
    }
    return Assignment(**values)


class Device:
    """One model name on one device, in this process; `start` may follow `stop` again."""

    def __init__(self, folder: Path, make_store: Callable[[Any], StateStore] = StateStore) -> None:
        self.folder = folder
        self._make_store = make_store
        self.answers: Counter[float] = Counter()
        self.totals: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._told = asyncio.Condition()
        self.crash_limits = CrashLimits(crashes=1000)
        self.ahead_ms = 0
        """How far the device's clock is beyond ours."""
        self.pool_options = PoolOptions(min_deadline_ms=5000)
        self.facts: dict[str, str | int | float | bool] = {"runtimes": "tflite"}

    async def start(self, *assignments: Assignment) -> None:
        self.store = self._make_store(open_database(self.folder / "state.sqlite"))
        identity = Identity(DeviceId("gw-1"), SiteId("lab"), "", {})
        limits = OutboxLimits(merge_above_rows=10**6)
        self.outbox = Spool(self.folder / "outbox.sqlite", identity.boot_id, limits)
        reporter = Reporter(identity, self.outbox, Clock(), lambda: None)
        self.pool = ForkserverPool(self.pool_options)
        source = open_source(
            "csv", {"path": str(self.folder / "rows.csv"), "rate_hz": 500.0, "loop": True}
        )
        self.pipeline = WorkerPipeline(MODEL, source, [self], overload="wait")
        self.manager = ModelManager(
            MODEL,
            self.folder / "files",
            Updates(self.folder, DeviceId("gw-1"), UpdateSettings()),
            self.store,
            self.pool,
            self.pipeline,
            reporter,
            self.facts,
            self._changed,
            crash_limits=self.crash_limits,
            now_ms=lambda: time.time_ns() // 1_000_000 + self.ahead_ms,
        )
        self.pipeline.on_incident = self.manager.on_incident
        for one in assignments:
            self.manager.assign(one)
        jobs = (self.manager.run(), self.pipeline.run(), self._close_windows())
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def stop(self) -> None:
        """End everything; the last window is counted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._observe()
        await self.pool.stop()
        self.outbox.close()
        self.store.close()

    def __call__(self, answers: Answers) -> None:
        """Be the pipeline's action: count answers by the gain of who gave them."""
        for x, y in answers.values:
            self.answers[round(y / (x + 1e-9), 3)] += 1

    def flush(self) -> None:
        """Nothing is held back."""

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds; it is asked again at each closed window."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def until_stage(self, stage: str) -> None:
        await self.until(lambda: self.stage == stage)

    @property
    def slots(self) -> Slots:
        return self.manager.slots

    @property
    def stage(self) -> str:
        candidate = self.slots.candidate
        return candidate.stage.value if candidate else ""

    @property
    def versions(self) -> tuple[str | None, str | None]:
        """Active and last good."""
        slots = self.slots
        return (
            slots.active.version if slots.active else None,
            slots.last_good.version if slots.last_good else None,
        )

    @property
    def answering(self) -> str | None:
        """The version whose worker answers."""
        worker = self.manager.running
        return worker.release.manifest.version if worker else None

    @property
    def lost(self) -> dict[str, int]:
        """Rows that were not answered, by why, but for those that waited when it stopped."""
        settled = self.totals["ok"] + self.dropped.total() + self.failed.total()
        assert self.totals["in"] == settled
        found = self.dropped + self.failed
        del found["stopped"]
        return dict(found)

    def events(self, kind: str = "") -> list[Any]:
        """Events told so far, oldest first."""
        from shoal.protocol.messages import UP_TYPES

        with contextlib.closing(open_database(self.folder / "outbox.sqlite")) as database:
            rows = database.execute(
                "SELECT body FROM messages WHERE channel = ? ORDER BY id", (Channel.EVENTS.value,)
            ).fetchall()
        found = [msgspec.json.decode(body, type=UP_TYPES[Channel.EVENTS]) for (body,) in rows]
        return [one for one in found if kind in ("", one.kind)]

    def execution(self, version: str) -> list[str]:
        """The states that the execution of a version went through."""
        told = [one.data["state"] for one in self.events("execution") if one.version == version]
        return [state for i, state in enumerate(told) if i == 0 or told[i - 1] != state]

    def _changed(self) -> None:
        """The real agent publishes its state here."""

    async def _close_windows(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            await self._observe()

    async def _observe(self) -> None:
        reports = await self.pipeline.take_reports()
        for one in reports:
            settled = one.ok + sum(one.dropped.values()) + sum(one.failed.values())
            assert one.in_count == settled, one
            self.totals.update({"in": one.in_count, "ok": one.ok})
            self.dropped.update(one.dropped)
            self.failed.update(one.failed)
        await self.manager.observe(reports)


class KillingStore(StateStore):
    """Kills its own process once a candidate's stage is stored."""

    version = stage = ""

    def save_slots(self, slots: Slots) -> None:
        super().save_slots(slots)
        candidate = slots.candidate
        if candidate is None or candidate.assignment.version != self.version:
            return
        if candidate.stage.value == self.stage:
            os.kill(os.getpid(), signal.SIGKILL)


def run_child(folder: str, stage: str, assignment: str) -> None:
    """In a process of its own: run the device until the stage is stored."""

    async def main() -> None:
        wanted = msgspec.json.decode(assignment, type=Assignment)
        KillingStore.version, KillingStore.stage = wanted.version, stage
        device = Device(Path(folder), KillingStore)
        await device.start(wanted)
        await device.until(lambda: False)

    asyncio.run(main())


CHILD = "import runpy, sys; runpy.run_path(sys.argv[1])['run_child'](*sys.argv[2:])"


def run_until_killed(folder: Path, stage: str, assignment: Assignment) -> int:
    """Run the device in a process that kills itself at `stage`; its exit code."""
    words = msgspec.json.encode(assignment).decode()
    command = [sys.executable, "-c", CHILD, __file__, str(folder), stage, words]
    return subprocess.run(command, timeout=WAIT_SECONDS * 2, check=False).returncode


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Serves releases: `repository.publish(2, gain=3.0)`."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    yield repository
    repository.close()


@pytest.fixture
def state_dir(repository: Repository, tmp_path: Path) -> Path:
    """A state folder as enrolment leaves it, and rows to read."""
    folder = tmp_path / "state"
    prepare_state(folder)
    (folder / "trust.json").write_bytes(msgspec.json.encode(Trust(repository.url)))
    pin_root(folder, repository.owners.first_root)
    rows = "".join(f"{number},{number * 2}\n" for number in range(1, 100))
    (folder / "rows.csv").write_text("a,b\n" + rows)
    return folder


@pytest.fixture
async def device(state_dir: Path) -> AsyncIterator[Device]:
    """A device that runs nothing yet; it is stopped at the end."""
    device = Device(state_dir)
    yield device
    if device._tasks:
        await device.stop()


@pytest.fixture
def assign() -> Callable[..., Assignment]:
    """Makes assignments: `assign(package, intent="rollback")`."""
    return assignment_of


@pytest.fixture
def kill_at() -> Callable[[Path, str, Assignment], int]:
    """Runs a device in its own process until it is killed at a stage."""
    return run_until_killed
