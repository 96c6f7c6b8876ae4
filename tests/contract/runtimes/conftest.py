"""Releases on disk as the updater leaves them, and a pool of real workers to load them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.ports import StagedRelease
from agent.runtimes import ADAPTERS, Engine
from agent.runtimes.base import Adapter
from agent.runtimes.guard import Guard
from agent.workers.pool import ForkserverPool
from shoal.dense import encode_dense
from shoal.modeling.onnx import write_onnx
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

Stage = Callable[..., StagedRelease]
PutOnDisk = Callable[[Manifest, dict[str, bytes], str], StagedRelease]


def make_network(sizes: tuple[int, ...], seed: int = 0) -> list[Dense]:
    """A network of random layers, all but the last with ReLU."""
    random = np.random.default_rng(seed)
    last = len(sizes) - 2
    return [
        Dense(
            random.normal(0, np.sqrt(2 / inputs), (outputs, inputs)).astype(np.float32),
            random.normal(0, 0.1, outputs).astype(np.float32),
            relu=number < last,
        )
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes))
    ]


def write_network(kind: str, layers: list[Dense]) -> bytes:
    """The network in the file format of a runtime."""
    if kind == "tflite":
        return write_float32(layers)
    if kind == "onnx":
        return write_onnx(layers)
    return encode_dense(
        [(one.weights, one.bias, "relu" if one.relu else "linear") for one in layers]
    )


@pytest.fixture
def write() -> Callable[[str, list[Dense]], bytes]:
    """Writes a network for a kind of runtime: `write("onnx", layers)`."""
    return write_network


@pytest.fixture(params=[one for one in ADAPTERS if one.available()], ids=lambda one: one.name)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """Each runtime that is installed."""
    found: Adapter = request.param
    return found


@pytest.fixture
def load(adapter: Adapter, tmp_path: Path) -> Callable[[bytes], Engine]:
    """Loads the bytes of a model with the runtime under test, guarded as in a worker."""

    def load_bytes(data: bytes) -> Engine:
        path = tmp_path / "model"
        path.write_bytes(data)
        return Guard(adapter.load(path, 1))

    return load_bytes


@pytest.fixture
def network() -> Callable[..., list[Dense]]:
    """Makes networks: `network((6, 3, 6), seed=1)`."""
    return make_network


@pytest.fixture
def put_on_disk(tmp_path: Path) -> PutOnDisk:
    """Writes manifest and files under their hashes and chooses a variant by name."""

    def put(manifest: Manifest, files: dict[str, bytes], variant: str) -> StagedRelease:
        document = encode_manifest(manifest)
        for data in (document, *files.values()):
            (tmp_path / sha256(data)).write_bytes(data)
        chosen = next(one for one in manifest.variants if one.name == variant)
        return StagedRelease(manifest, sha256(document), chosen, tmp_path)

    return put


@pytest.fixture
def stage(put_on_disk: PutOnDisk) -> Stage:
    """Puts a model file with a raw contract on the disk: `stage(data, inputs=3, outputs=2)`."""

    def put(data: bytes, inputs: int = 3, outputs: int = 2, **variant: Any) -> StagedRelease:
        names = [f"y{i}" for i in range(outputs)]
        files = {"model.tflite": data}
        manifest = Manifest(
            model="net",
            version="1.0.0",
            sequence=1,
            created="2026-01-01T00:00:00+00:00",
            files=file_entries(files),
            variants=[Variant(name="only", file="model.tflite", **variant)],
            contract=Contract(
                features=[Feature(name=f"x{i}") for i in range(inputs)],
                outputs=[OutputField(name=name) for name in names],
                postprocess=[RawOutputs(fields=names)],
            ),
        )
        return put_on_disk(manifest, files, "only")

    return put


@pytest.fixture
async def pool() -> AsyncIterator[ForkserverPool]:
    """A pool whose processes are all gone afterwards."""
    pool = ForkserverPool()
    yield pool
    await pool.stop()
    assert pool.pids() == []
