"""What the parts of the agent promise each other: small interfaces and the values they pass.

The resident process imports this, so nothing here touches numpy or a runtime. The data plane
(`workers`, `pipeline`, `sources`, `actions`) stands behind `WorkerPool` and `Pipeline`; the
service (`slots`, `reporter`, `app`) sees only these.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from shoal.errors import ShoalError
from shoal.protocol.manifest import Manifest, Variant
from shoal.protocol.messages import FieldStatistics


@dataclass(frozen=True, slots=True)
class StagedRelease:
    """A verified release on disk, with the variant chosen for this device.

    `folder / sha256` is each file, read-only. The file is hashed again at every load.
    """

    manifest: Manifest
    manifest_sha256: str
    variant: Variant
    folder: Path

    def path(self, name: str) -> Path:
        """Where the file that the manifest calls `name` lies."""
        return self.folder / self.manifest.file(name).sha256


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """What really executes the model, as probed in the worker."""

    runtime: str
    """ai-edge-litert, tflite-runtime, numpy, …"""
    version: str
    kernels: str
    """xnnpack or reference."""


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """Golden samples run on this device. `worst` is the largest |got - expected| / tolerance."""

    passed: bool
    samples: int
    worst: float
    latency_p99_ms: float
    sentence: str


class LoadRefusedError(ShoalError):
    """A release that does not become a running worker; `code` says why.

    digest-mismatch, load-failed, worker-crashed, wrong-tensor, no-runtime, load-timeout.
    """

    code = "load-failed"


class LoadedModel(Protocol):
    """One worker process with one model in it."""

    @property
    def release(self) -> StagedRelease: ...
    @property
    def facts(self) -> RuntimeFacts: ...
    @property
    def pid(self) -> int:
        """Process id now; it changes when the worker is replaced after a crash or a deadline."""
        ...

    async def golden(self) -> GoldenReport:
        """Run the package's golden samples; passes with 0 samples where it has none.

        Raises `LoadRefusedError` when the worker is lost over them.
        """
        ...

    async def close(self) -> None:
        """End the process and wait for it."""
        ...


class WorkerPool(Protocol):
    """Makes workers; starts its forkserver with the first."""

    async def load(self, release: StagedRelease) -> LoadedModel:
        """Hash, clone, load, probe; raise `LoadRefusedError`."""
        ...

    async def stop(self) -> None: ...
    def pids(self) -> list[int]:
        """The forkserver's and all workers' process ids."""
        ...


@dataclass(frozen=True, slots=True)
class Samples:
    """A batch of raw rows from a source, in the units of the sensors.

    `values` is little-endian float32, `len(times_ms)` × `width`, row by row, in the order of
    the contract's features; NaN where a value is missing.
    """

    times_ms: list[int]
    values: bytes
    width: int


class Source(Protocol):
    """Where rows come from."""

    @property
    def live(self) -> bool:
        """Whether rows come whether or not anybody is ready; a file can wait."""
        ...

    def select(self, features: list[str]) -> None:
        """Give rows of these features, in this order, from the next batch on."""
        ...

    def batches(self) -> AsyncGenerator[Samples, None]:
        """Yield rows until the source ends; waits (never polls) for the next."""
        ...

    def take_dropped(self) -> dict[str, int]:
        """Rows it read but could not use, by reason, since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions of one micro-batch, after postprocessing, `len(times_ms)` rows."""

    model: str
    version: str
    release_sequence: int
    names: list[str]
    times_ms: list[int]
    values: list[list[float]]
    labels: list[str]
    """Empty where the contract gives none."""


class Action(Protocol):
    """Does something with answers and returns at once; slow work is queued inside."""

    def __call__(self, answers: Answers) -> None: ...
    def flush(self) -> None:
        """Let go of what is held back; called when a window closes."""
        ...

    def close(self) -> None:
        """Nothing follows; called once, at an orderly stop."""
        ...


@runtime_checkable
class Follower(Action, Protocol):
    """A source whose rows are another model's answers: an action of that model."""

    follows: str


@dataclass(frozen=True, slots=True)
class WorkerIncident:
    """A worker died or missed its deadline; the pipeline has already recovered or given up."""

    model: str
    version: str
    code: str
    """worker-crashed, deadline-missed, worker-memory; quarantined for rows that cost workers."""
    sentence: str
    recovered: bool


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One reporting window of one pipeline. `in_count == ok + Σ dropped + Σ failed`, always."""

    release: StagedRelease
    facts: RuntimeFacts
    start_ms: int
    """Steady time (`agent.clock`), which no setting of the clock moves."""
    end_ms: int
    in_count: int
    ok: int
    dropped: dict[str, int]
    failed: dict[str, int]
    latency_counts: list[int]
    """In the bins of `shoal.protocol.messages.LATENCY_EDGES_US`, per row, invoke and transport."""
    latency_max_us: float
    worker_restarts: int
    labels: dict[str, int]
    out_of_range: int
    """Answers outside an output's declared range or not finite."""
    features: list[FieldStatistics] = field(default_factory=list)
    outputs: list[FieldStatistics] = field(default_factory=list)
    statistics_rows: int = 0
    statistics_lost: int = 0


class Pipeline(Protocol):
    """source → window → worker → postprocess → actions, for one model name."""

    async def run(self) -> None:
        """Read the source until it ends or the task is cancelled.

        Without a model, rows are counted as dropped for the reason `no-model`.
        """
        ...

    async def swap(self, loaded: LoadedModel | None) -> LoadedModel | None:
        """Put `loaded` in place between two micro-batches; return what was there, still alive.

        The window under way is closed first, so that no report mixes two releases.
        """
        ...

    async def take_reports(self) -> list[WindowReport]:
        """Close the window and return every closed one not taken yet (more after a swap)."""
        ...
