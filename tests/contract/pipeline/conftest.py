"""Releases that answer with their own input, CSV files to replay, and real workers.

The network is the identity, so every answer can be compared with the row it came from.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.pipeline import WorkerPipeline
from agent.ports import Answers, Source, StagedRelease, WindowReport, WorkerIncident
from agent.sources import open_source
from agent.workers.pool import ForkserverPool, PoolOptions, Worker
from shoal.package import file_entries, sha256
from shoal.protocol.manifest import (
    Contract,
    Feature,
    Manifest,
    OutputField,
    RawOutputs,
    Variant,
    encode_manifest,
)
from shoal.tflite.writer import Dense, write_float32

FEATURES = ("a", "b")


def row_values(number: int) -> dict[str, float]:
    """What column a, b and c of row `number` hold."""
    return {"a": float(number), "b": number + 0.5, "c": -float(number)}


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., StagedRelease]:
    """Makes releases: `release(2, features=("b", "a"), window_rows=3, deadline_ms=5.0)`."""

    def make(
        sequence: int = 1,
        features: tuple[str, ...] = FEATURES,
        window_rows: int = 1,
        gain: float = 1.0,
        hidden: int = 0,
        contract: dict[str, Any] | None = None,
        feature: dict[str, Any] | None = None,
        **changes: Any,
    ) -> StagedRelease:
        width = len(features) * window_rows
        layer = Dense(np.eye(width, dtype=np.float32) * np.float32(gain), np.zeros(width, "f4"))
        names = [f"y{i}" for i in range(width)]
        layers = [layer]
        if hidden:  # the same answers, slowly: zeros are added to them
            wide = np.zeros((width, hidden), "f4")
            wide[:, :width] = np.eye(width)
            square = np.eye(hidden, dtype="f4")
            layers = [
                Dense(wide.T.copy(), np.zeros(hidden, "f4")),
                Dense(square, np.zeros(hidden, "f4")),
                Dense(wide, np.zeros(width, "f4")),
            ]
        files = {"model.tflite": write_float32(layers)}
        manifest = Manifest(
            model="echo",
            version=f"{sequence}.0.0",
            sequence=sequence,
            created="2026-01-01T00:00:00+00:00",
            files=file_entries(files),
            variants=[Variant(name="only", file="model.tflite")],
            contract=Contract(
                **{
                    "features": [Feature(name=name, **(feature or {})) for name in features],
                    "outputs": [OutputField(name=name) for name in names],
                    "postprocess": [RawOutputs(fields=names)],
                    "window_rows": window_rows,
                    **(contract or {}),
                }
            ),
            **changes,
        )
        document = encode_manifest(manifest)
        for data in (document, *files.values()):
            (tmp_path / sha256(data)).write_bytes(data)
        return StagedRelease(manifest, sha256(document), manifest.variants[0], tmp_path)

    return make


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows 0 … count-1: `write_csv(100, missing={3}, unparsable={4})`."""

    def write(count: int, missing: Any = (), unparsable: Any = ()) -> Path:
        path = tmp_path / "rows.csv"
        with path.open("w") as file:
            file.write("time_ms,a,b,c\n")
            for number in range(count):
                row = row_values(number)
                b = "NA" if number in missing else "?" if number in unparsable else row["b"]
                file.write(f"{number},{row['a']},{b},{row['c']}\n")
        return path

    return write


class Bench:
    """A pipeline over a CSV file, what it answered, and what it told."""

    def __init__(self, source: Path | Source, rate_hz: float = 0.0, **options: Any) -> None:
        if isinstance(source, Path):
            table = {"path": str(source), "time_column": "time_ms", "rate_hz": rate_hz}
            source = open_source("csv", table)
        self.incidents: list[WorkerIncident] = []
        self.answers: dict[int, list[float]] = {}
        self.versions: dict[int, str] = {}
        self.reports: list[WindowReport] = []
        self.plans: list[tuple[int, Callable[[], None]]] = []
        options = {"max_batch_rows": 64, **options}  # so that plans meet different batches
        self.pipeline = WorkerPipeline("echo", source, [self], self.incidents.append, **options)
        self.task: asyncio.Task[None] | None = None
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def __call__(self, answers: Answers) -> None:
        """Be the pipeline's action: note answers, and do what is planned for that many."""
        for time_ms, values in zip(answers.times_ms, answers.values, strict=True):
            assert time_ms not in self.answers, f"row {time_ms} was answered twice"
            self.answers[time_ms] = values
            self.versions[time_ms] = answers.version
        while self.plans and len(self.answers) >= self.plans[0][0]:
            self.plans.pop(0)[1]()
        for rows, event in self._waiting:
            if len(self.answers) >= rows:
                event.set()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held."""

    def at(self, rows: int, act: Callable[[], None]) -> None:
        """Do something between two batches, once `rows` rows are answered."""
        self.plans.append((rows, act))

    async def answered(self, rows: int) -> None:
        """Wait until `rows` rows are answered."""
        assert self.task is not None
        event = asyncio.Event()
        self._waiting.append((rows, event))
        reached = asyncio.ensure_future(event.wait())
        if len(self.answers) < rows:
            await asyncio.wait({reached, self.task}, timeout=20, return_when="FIRST_COMPLETED")
        if self.task.done():
            self.task.result()
        reached.cancel()
        assert len(self.answers) >= rows, f"{len(self.answers)} of {rows} rows answered"

    async def start(self, worker: Worker) -> None:
        """Begin to replay the file."""
        await self.pipeline.swap(worker)
        self.task = asyncio.create_task(self.pipeline.run())

    async def finish(self) -> None:
        """Wait until the whole file is replayed."""
        assert self.task is not None
        await asyncio.wait_for(self.task, 20)

    async def run(self, worker: Worker) -> None:
        """Replay the whole file."""
        await self.start(worker)
        await self.finish()

    async def take(self) -> list[WindowReport]:
        """Close the window; return all reports so far."""
        self.reports += await self.pipeline.take_reports()
        return self.reports


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """Makes benches: `bench(path, rate_hz=1000)`."""
    return Bench


@pytest.fixture
async def pool() -> AsyncIterator[ForkserverPool]:
    """A pool whose processes are all gone afterwards."""
    pool = ForkserverPool(PoolOptions(min_deadline_ms=5000))  # only a hang may miss it
    yield pool
    await pool.stop()
    assert pool.pids() == []


class Totals:
    """The sums over reports, after checking that each balances."""

    def __init__(self, reports: list[WindowReport]) -> None:
        self.in_count = self.ok = self.restarts = 0
        self.statistics_rows = self.statistics_lost = 0
        self.dropped: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        for report in reports:
            settled = report.ok + sum(report.dropped.values()) + sum(report.failed.values())
            assert report.in_count == settled, report
            assert sum(report.latency_counts) == report.ok
            self.in_count += report.in_count
            self.ok += report.ok
            self.restarts += report.worker_restarts
            self.dropped.update(report.dropped)
            self.failed.update(report.failed)
            self.statistics_rows += report.statistics_rows
            self.statistics_lost += report.statistics_lost


@pytest.fixture
def totals() -> Callable[[list[WindowReport]], Totals]:
    """Adds reports up and checks each."""
    return Totals


@pytest.fixture
def row() -> Callable[[int], dict[str, float]]:
    """What the columns of a row hold: `row(7)["a"]`."""
    return row_values


@pytest.fixture
def marked_csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows like `write_csv`; column a of some rows holds what a `fatal_release` minds."""

    def write(count: int, marks: dict[int, float], missing: Any = ()) -> Path:
        path = tmp_path / "marked.csv"
        lines = ["time_ms,a,b"]
        for number in range(count):
            b = "NA" if number in missing else number + 0.5
            lines.append(f"{number},{marks.get(number, number)},{b}")
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


FATAL_RUNTIME = """
import os, signal, time
import numpy as np

class Engine:
    name, version, kernels = "fatal", "1", "numpy"
    def __init__(self, values):
        self.input_values = self.output_values = values
    def run(self, inputs):
        if (inputs == -555).any():
            time.sleep(0.5)
        if (inputs == -666).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if (inputs == -999).any():
            time.sleep(3600)
        return np.array(inputs, np.float32)

class Adapter:
    name, kind = "fatal", "fatal"
    def available(self):
        return True
    def load(self, path, num_threads):
        return Engine(int(path.read_text()))
    def operators(self):
        return {}

adapter = Adapter()
"""
"""The identity, but -666 makes the process die of SIGSEGV, -999 makes it hang, -555 slow."""


@pytest.fixture
def fatal_release(
    release: Callable[..., StagedRelease], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., StagedRelease]:
    """Makes releases as `release` does, for a third party's runtime that dies of marked rows."""
    site = tmp_path / "site"
    information = site / "fatal_runtime-1.dist-info"
    information.mkdir(parents=True)
    (information / "entry_points.txt").write_text(
        "[shoal.runtimes]\nfatal.fatal = fatal_runtime:adapter\n"
    )
    (site / "fatal_runtime.py").write_text(FATAL_RUNTIME)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)

    def make(*args: Any, **changes: Any) -> StagedRelease:
        staged = release(*args, **changes)
        contract = staged.manifest.contract
        text = str(len(contract.features) * contract.window_rows).encode()
        files = {"model.txt": text}
        variant = Variant(name="only", runtime="fatal", file="model.txt")
        manifest = msgspec.structs.replace(
            staged.manifest, files=file_entries(files), variants=[variant]
        )
        document = encode_manifest(manifest)
        for data in (document, text):
            (tmp_path / sha256(data)).write_bytes(data)
        return StagedRelease(manifest, sha256(document), variant, tmp_path)

    return make
