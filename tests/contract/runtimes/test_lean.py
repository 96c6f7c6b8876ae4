"""Workers without numpy answer and count as those with it, and say so when they cannot."""

from __future__ import annotations

import os
import signal
from array import array
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.introspect import prefers_c_library
from agent.lean.model import LeanModel
from agent.ports import LoadRefusedError
from agent.workers.frames import InferRequest
from agent.workers.order import LoadOrder, Release
from agent.workers.worker import Model
from shoal.baseline import encode_baseline
from shoal.package import file_entries
from shoal.protocol.manifest import Contract, Feature, Golden, Manifest, OutputField, Variant
from shoal.protocol.steps import Clip, RawOutputs, Scale, Spectrum, Threshold
from shoal.statistics import make_baseline
from shoal.tflite.writer import write_int8

pytestmark = pytest.mark.contract

WIDTH = 6


def _contract(**more):
    return Contract(
        features=[Feature(name=f"x{i}", low=-2.0, high=2.0) for i in range(WIDTH)],
        outputs=[OutputField(name="y0", low=-1.0, high=1.0), OutputField(name="y1")],
        postprocess=[RawOutputs(fields=["y0", "y1"]), Threshold(field="y1", above=0.0)],
        **more,
    )


@pytest.fixture
def rows():
    return np.random.default_rng(3).normal(0, 1, (300, WIDTH)).astype(np.float32)


@pytest.fixture
def stage_contract(put_on_disk, network, rows):
    """A release of a random network with the given contract, a baseline and golden samples."""

    def put(contract, inputs, model=None):
        golden = {"inputs": [[0.0] * WIDTH * contract.window_rows], "outputs": [[0.0, 0.0]]}
        files = {
            "model.tflite": model or write_int8(network((inputs, 8, 2)), _tensors(inputs)),
            "golden.json": msgspec.json.encode(golden),
            "baseline.json": encode_baseline(
                make_baseline(rows, rows[:, :2], [f"x{i}" for i in range(WIDTH)], ["y0", "y1"])
            ),
        }
        manifest = Manifest(
            model="net",
            version="1.0.0",
            sequence=1,
            created="2026-01-01T00:00:00+00:00",
            files=file_entries(files),
            variants=[Variant(name="only", file="model.tflite")],
            contract=contract,
            baseline="baseline.json",
            golden=Golden(file="golden.json", absolute={"xnnpack": 5.0, "reference": 5.0}),
        )
        return put_on_disk(manifest, files, "only")

    return put


def _tensors(inputs):
    return np.random.default_rng(4).normal(0, 1, (64, inputs)).astype(np.float32)


def _open(kind, staged):
    order = LoadOrder(
        folder=str(staged.folder),
        manifest_sha256=staged.manifest_sha256,
        variant="only",
        num_threads=1,
        memory_bytes=0,
    )
    return kind(Release(order), order)


def _infer(model, rows, carried=0):
    request = InferRequest(carried, len(rows) - carried, WIDTH, rows.astype("<f4").tobytes())
    return model.infer(request)


def _holds_numpy(pid):
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    return "_multiarray_umath" in maps


@pytest.mark.parametrize(
    ("steps", "inputs"),
    [
        ({}, WIDTH),
        ({"preprocess": [Scale(mean=[0.1] * WIDTH, std=[2.0] * WIDTH), Clip(low=-1, high=1)]}, 6),
        ({"window_rows": 3, "stride_rows": 2}, 3 * WIDTH),
    ],
    ids=["plain", "scaled", "windows"],
)
def test_answers_and_statistics_agree_with_numpy(stage_contract, rows, steps, inputs, monkeypatch):
    monkeypatch.setenv("SHOAL_RUNTIMES", "tflite-c")  # the same kernels on both sides
    staged = stage_contract(_contract(**steps), inputs)
    rows[7, 2], rows[9, 0], rows[20, 5] = np.nan, np.inf, 1e30
    ours, theirs = _open(LeanModel, staged), _open(Model, staged)
    assert ours.facts() == theirs.facts()
    for start, stop in ((0, 40), (40, 41), (41, 300)):
        carried = min(start, 2) if steps.get("window_rows") else 0
        part = rows[start - carried : stop]
        found, expected = _infer(ours, part, carried), _infer(theirs, part, carried)
        assert found.windows == expected.windows
        assert (found.rows, found.labels) == (expected.rows, expected.labels)
        assert found.out_of_range == expected.out_of_range
        values = np.frombuffer(found.values, "<f4"), np.frombuffer(expected.values, "<f4")
        assert np.allclose(*values, atol=0.05, equal_nan=True)  # a step of int8
    found, expected = ours.take_statistics(), theirs.take_statistics()
    assert found["rows"] == expected["rows"] == 300
    for mine, other in zip(found["features"][:WIDTH], expected["features"][:WIDTH], strict=True):
        counts = [getattr(mine, name) for name in ("count", "missing", "nonfinite", "bins")]
        assert counts == [
            getattr(other, name) for name in ("count", "missing", "nonfinite", "bins")
        ]
    assert len(found["features"]) == len(expected["features"])
    assert ours.golden()["samples"] == theirs.golden()["samples"] == 1
    assert ours.golden()["worst"] == pytest.approx(theirs.golden()["worst"], abs=0.05)
    assert ours.warm_up() > 0


async def test_a_worker_imports_no_numpy_and_is_replaced_after_a_kill(
    stage_contract, rows, pool, monkeypatch
):
    monkeypatch.setenv("SHOAL_RUNTIMES", "tflite-c")
    worker = await pool.load(stage_contract(_contract(), WIDTH))
    assert worker.facts.runtime == "tflite-c"
    request = InferRequest(0, 4, WIDTH, rows[:4].tobytes())
    first = await worker.infer(request)
    for pid in pool.pids():
        assert not _holds_numpy(pid)
    os.kill(worker.pid, signal.SIGKILL)
    again = await worker.infer(request)
    assert again.values == first.values
    taken = await worker.take_statistics()
    assert (taken.rows, taken.lost) == (4, 4)


async def test_steps_that_need_numpy_get_it_in_their_own_worker(
    stage_contract, rows, pool, monkeypatch
):
    monkeypatch.setenv("SHOAL_RUNTIMES", "tflite-c")
    contract = _contract(window_rows=8, preprocess=[Spectrum(bands=4)])
    worker = await pool.load(stage_contract(contract, 4 * WIDTH))
    answer = await worker.infer(InferRequest(0, 8, WIDTH, rows[:8].tobytes()))
    assert answer.windows == 1
    forkserver, own = pool.pids()
    assert _holds_numpy(own)
    assert not _holds_numpy(forkserver)


async def test_a_broken_file_is_refused_before_the_library_reads_it(
    stage_contract, network, pool, monkeypatch
):
    monkeypatch.setenv("SHOAL_RUNTIMES", "tflite-c")
    model = write_int8(network((WIDTH, 8, 2)), _tensors(WIDTH))
    with pytest.raises(LoadRefusedError) as caught:
        await pool.load(stage_contract(_contract(), WIDTH, model[: len(model) // 2]))
    assert caught.value.code == "bad-model"


async def test_a_model_of_another_width_is_refused(stage_contract, pool, monkeypatch):
    monkeypatch.setenv("SHOAL_RUNTIMES", "tflite-c")
    with pytest.raises(LoadRefusedError, match="expected 6 input values") as caught:
        await pool.load(stage_contract(_contract(), WIDTH + 1))
    assert caught.value.code == "wrong-tensor"


def test_rows_of_another_width_are_refused(stage_contract):
    model = _open(LeanModel, stage_contract(_contract(), WIDTH))
    with pytest.raises(Exception, match="expected 6 values, got 5"):
        model.infer(InferRequest(0, 1, 5, array("f", [0.0] * 5).tobytes()))


@pytest.mark.parametrize(
    ("order", "expected"), [("tflite-c", True), ("numpy,tflite-c", True), ("numpy", False)]
)
def test_the_order_of_runtimes_decides(order, expected, monkeypatch):
    monkeypatch.setenv("SHOAL_RUNTIMES", order)
    assert prefers_c_library() is expected
