"""A thousand damaged packages and models under every TFLite runtime: each refused, none deadly.

Files are damaged at random from a fixed seed: cut off, bits flipped, noise over the header. An
archive must be refused, or hold exactly what was signed (a flipped bit in a timestamp). A model
file is given to a worker twice: under its old hash, which tells at once, and under a hash of its
own, as if somebody had signed it so; then reading it, the runtime or its own process must say no,
or the file still runs.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from datetime import UTC, datetime

import msgspec
import numpy as np
import psutil
import pytest

from agent.ports import LoadRefusedError
from agent.runtimes import adapters_of
from agent.workers.frames import InferRequest
from agent.workers.pool import ForkserverPool
from shoal.errors import ShoalError
from shoal.modeling.autoencoder import train_autoencoder
from shoal.modeling.build import autoencoder_draft, build_package
from shoal.package import file_entries, read_package, sha256, verify_package, write_package
from shoal.protocol.manifest import Feature, encode_manifest
from shoal.signing import FileSigner, KeyVerifier

pytestmark = pytest.mark.contract

ARCHIVES, MODELS = 500, 500
TFLITE = [one.name for one in adapters_of("tflite") if one.available()]
WAYS = ("cut", "flip", "noise")


def damage(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """One damaged copy and how it was damaged; never equal to `data`."""
    way = draw.choice(WAYS)
    while True:
        changed = bytearray(data)
        if way == "cut":
            del changed[draw.randrange(len(data)) :]
        elif way == "flip":
            for _ in range(draw.choice((1, 1, 2, 16))):
                changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        else:
            start = draw.randrange(64)
            noise = draw.randbytes(draw.randrange(1, 64))
            changed[start : start + len(noise)] = noise
        if changed != data:
            return way, bytes(changed)


@pytest.fixture(scope="module")
def signer():
    """A release key."""
    return FileSigner.generate()


@pytest.fixture(scope="module")
def package(signer):
    """A signed autoencoder of float32 and int8."""
    values = np.random.default_rng(6).normal(0, 1, (300, 2))
    rows = (20 + values @ np.array([[1.0, 2, 0, 1], [0, 1, 2, -1]])).astype(np.float32)
    model = train_autoencoder(rows, (6, 2, 6), epochs=10)
    features = [Feature(name=f"x{i}") for i in range(4)]
    draft = autoencoder_draft(model, rows, features, name="ae", version="1.0.0", sequence=1)
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return build_package(dataclasses.replace(draft, created=created), signer)


def test_every_damaged_package_is_refused_or_holds_exactly_what_was_signed(
    package, signer, tmp_path
):
    path = tmp_path / "ae.shoal"
    write_package(package, path)
    data, draw, codes = path.read_bytes(), random.Random(21), Counter()
    verifier = KeyVerifier([signer.public_key])
    for _ in range(ARCHIVES):
        way, damaged = damage(data, draw)
        path.write_bytes(damaged)
        try:
            found = read_package(path)
            verify_package(found, verifier)
        except ShoalError as error:
            codes[error.code] += 1
        else:
            assert found.manifest_bytes == package.manifest_bytes, way
            assert found.files == package.files, way
            codes["intact"] += 1
    assert codes["digest-mismatch"] + codes["not-a-package"] > ARCHIVES / 2
    assert codes["intact"] < ARCHIVES / 5
    assert "" not in codes


@pytest.fixture(params=TFLITE)
async def pool(request, monkeypatch):
    """A pool whose workers use one runtime."""
    monkeypatch.setenv("SHOAL_RUNTIMES", request.param)
    made = ForkserverPool()
    yield made
    await made.stop()
    assert made.pids() == []


async def test_no_damaged_model_runs_unnoticed_or_harms_anything_but_its_own_worker(
    pool, put_on_disk, package, tmp_path
):
    draw, codes = random.Random(22), Counter()
    good = await pool.load(put_on_disk(package.manifest, package.files, "int8"))
    server, first = pool.pids()[0], good.pid
    for number in range(MODELS):
        variant = ("float32", "int8")[number % 2]
        file = f"model.{variant}.tflite"
        way, damaged = damage(package.files[file], draw)
        codes[f"own hash: {await _load(pool, _signed(put_on_disk, package, file, damaged))}"] += 1
        if number % 8 == 0:
            code = await _load(pool, _swapped(put_on_disk, package, file, damaged, tmp_path))
            assert code == "digest-mismatch", way
        for path in tmp_path.iterdir():
            path.unlink()
    answered = await good.infer(InferRequest(0, 1, 4, np.full(4, 20, np.float32).tobytes()))
    assert answered.windows == 1
    assert (pool.pids()[0], good.pid) == (server, first), "a worker or the forkserver was replaced"
    assert len(psutil.Process(server).children()) == 1, "a refused worker is left"
    refused = sum(count for code, count in codes.items() if code != "own hash: loaded")
    assert codes["own hash: bad-model"] > MODELS / 2, codes
    assert refused >= MODELS * 0.6, codes
    assert "own hash: no words" not in codes


async def _load(pool, release):
    """`loaded`, or the code of the refusal; a loaded one is closed."""
    try:
        worker = await pool.load(release)
    except LoadRefusedError as error:
        return error.code if error.sentence else "no words"
    await worker.golden()
    await worker.close()
    return "loaded"


def _signed(put_on_disk, package, file, damaged):
    """The release as if its author had packaged the damaged file."""
    files = {**package.files, file: damaged}
    manifest = msgspec.structs.replace(package.manifest, files=file_entries(files))
    return put_on_disk(manifest, files, file.split(".")[1])


def _swapped(put_on_disk, package, file, damaged, folder):
    """The good release with the damaged bytes lying where the good file was."""
    release = put_on_disk(package.manifest, package.files, file.split(".")[1])
    (folder / sha256(package.files[file])).write_bytes(damaged)
    assert encode_manifest(release.manifest)
    return release
