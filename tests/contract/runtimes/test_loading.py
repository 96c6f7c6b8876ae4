"""Loading through a real worker: a good release answers, a bad one is refused and harms nobody."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import numpy as np
import psutil
import pytest

from agent.ports import LoadRefusedError
from agent.runtimes import adapters_of
from agent.workers.frames import InferRequest
from shoal.modeling.autoencoder import train_autoencoder
from shoal.modeling.build import autoencoder_draft, build_package
from shoal.protocol.manifest import Feature
from shoal.tflite.writer import forward, write_float32, write_int8

pytestmark = pytest.mark.contract


def _rows(count=300, width=4):
    random = np.random.default_rng(5)
    hidden = random.normal(0, 1, (count, 2))
    noise = random.normal(0, 0.1, (count, width))
    return (20 + hidden @ random.normal(0, 3, (2, width)) + noise).astype(np.float32)


async def _infer(worker, rows):
    return await worker.infer(InferRequest(0, len(rows), rows.shape[1], rows.tobytes()))


async def _refused(pool, release):
    with pytest.raises(LoadRefusedError) as caught:
        await pool.load(release)
    assert caught.value.sentence
    return caught.value.code


@pytest.mark.parametrize("kind", ["float32", "int8"])
async def test_a_loaded_network_answers_like_numpy(pool, stage, network, kind):
    layers = network((3, 5, 2))
    rows = np.random.default_rng(1).normal(0, 1, (50, 3)).astype(np.float32)
    data = write_float32(layers) if kind == "float32" else write_int8(layers, rows)
    worker = await pool.load(stage(data, precision=kind))
    answer = await _infer(worker, rows)
    found = np.frombuffer(answer.values, "<f4").reshape(50, 2)
    expected = forward(layers, rows)[-1]
    tolerance = 1e-5 if kind == "float32" else 4 * np.ptp(expected) / 255
    assert np.abs(found - expected).max() <= tolerance
    assert (answer.windows, answer.outputs, answer.rows) == (50, 2, bytes(50))
    assert worker.facts.runtime in {"ai-edge-litert", "tflite-runtime"}
    assert worker.facts.version[0].isdigit()
    assert worker.facts.kernels in {"xnnpack", "reference"}


KINDS = [kind for kind in ("onnx", "numpy") if any(one.available() for one in adapters_of(kind))]


@pytest.mark.parametrize("kind", KINDS)
async def test_other_kinds_of_files_answer_like_numpy(pool, stage, network, write, kind):
    layers = network((3, 5, 2))
    rows = np.random.default_rng(1).normal(0, 1, (50, 3)).astype(np.float32)
    worker = await pool.load(stage(write(kind, layers), runtime=kind))
    answer = await _infer(worker, rows)
    found = np.frombuffer(answer.values, "<f4").reshape(50, 2)
    assert np.abs(found - forward(layers, rows)[-1]).max() <= 1e-5
    name = {"onnx": "onnxruntime", "numpy": "numpy"}[kind]
    assert (worker.facts.runtime, worker.facts.kernels) == (name, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"\0" * 99, b'{"format": "shoal-dense"}', b"\x08\x08:\xff"])
async def test_other_kinds_of_files_are_refused_when_damaged(pool, stage, kind, data):
    assert await _refused(pool, stage(data, runtime=kind)) == "load-failed"


@pytest.fixture(scope="module")
def draft():
    """A small trained autoencoder, ready to be packed."""
    rows = _rows()
    features = [Feature(name=f"x{i}") for i in range(rows.shape[1])]
    model = train_autoencoder(rows, (6, 2, 6), epochs=20)
    made = autoencoder_draft(model, rows, features, name="ae", version="1.0.0", sequence=1)
    return model, dataclasses.replace(made, created=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("variant", ["float32", "int8"])
async def test_golden_samples_pass_on_this_runtime(pool, put_on_disk, draft, variant):
    package = build_package(draft[1])
    worker = await pool.load(put_on_disk(package.manifest, package.files, variant))
    report = await worker.golden()
    assert report.passed, report.sentence
    assert report.samples == 16
    assert 0 <= report.worst <= 1
    assert worker.labels == ["normal", "anomaly"]


async def test_golden_samples_of_another_model_fail(pool, put_on_disk, draft):
    model, made = draft
    biased = [dataclasses.replace(layer, bias=layer.bias + 5) for layer in model.layers]
    files = {**made.files, "model.float32.tflite": write_float32(biased)}
    package = build_package(dataclasses.replace(made, files=files))
    worker = await pool.load(put_on_disk(package.manifest, package.files, "float32"))
    report = await worker.golden()
    assert not report.passed
    assert report.worst > 1
    assert f"worst difference {report.worst:.2f} of the tolerance" in report.sentence


def _good(network):
    return write_float32(network((3, 5, 2)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"\0" * 4096,
        lambda data: b"not a model at all" * 100,
        lambda data: data[:20],
        lambda data: data[: len(data) // 2],
        lambda data: data[:4] + b"TFL9" + data[8:],
        lambda data: b"\xff" * 4 + data[4:],
    ],
    ids=["empty", "zeros", "text", "head", "half", "other-magic", "wild-offset"],
)
async def test_a_corrupt_file_under_its_own_hash_is_refused(pool, stage, network, damage):
    """The hash holds, so only reading the file can tell, before a runtime follows its offsets."""
    release = stage(damage(_good(network)))
    assert await _refused(pool, release) in {"bad-model", "load-failed"}
    good = await pool.load(stage(_good(network)))
    assert (await _infer(good, np.zeros((1, 3), np.float32))).windows == 1


async def test_random_damage_never_harms_the_pool(pool, stage, network):
    random = np.random.default_rng(11)
    data, refused = _good(network), 0
    for _ in range(24):
        damaged = bytearray(data)
        for at in random.integers(0, len(data), 12):
            damaged[at] ^= int(random.integers(1, 256))
        try:
            worker = await pool.load(stage(bytes(damaged)))
        except LoadRefusedError:
            refused += 1
        else:
            await worker.close()
    assert refused > 0
    good = await pool.load(stage(data))
    assert (await _infer(good, np.zeros((2, 3), np.float32))).windows == 2


@pytest.mark.parametrize("what", ["model", "manifest"])
@pytest.mark.parametrize("how", ["changed", "missing"])
async def test_a_file_that_changed_on_disk_is_refused(pool, stage, network, what, how):
    release = stage(_good(network))
    path = (
        release.path("model.tflite")
        if what == "model"
        else release.folder / release.manifest_sha256
    )
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert await _refused(pool, release) == "digest-mismatch"


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 2), (4, 2)])
async def test_a_model_of_another_width_than_its_contract_is_refused(
    pool, stage, network, inputs, outputs
):
    release = stage(_good(network), inputs=inputs, outputs=outputs)
    assert await _refused(pool, release) == "wrong-tensor"


async def test_a_runtime_that_is_not_here_is_refused(pool, stage, network):
    assert await _refused(pool, stage(_good(network), runtime="openvino")) == "no-runtime"


async def test_refused_workers_leave_no_process_behind(pool, stage, network):
    for _ in range(3):
        await _refused(pool, stage(b"x"))
    (server,) = pool.pids()
    assert psutil.Process(server).children() == []
