"""While data drifts from the baseline, windows of it are captured: one a second, no more."""

from __future__ import annotations

import array
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from agent.capture import CaptureStore, Recorder
from agent.clock import Clock, Known
from agent.ports import StagedRelease
from agent.workers.frames import InferAnswer
from shoal.baseline import encode_baseline
from shoal.package import file_entries
from shoal.protocol.manifest import CapturePolicy, Contract, Feature, Manifest, OutputField, Variant
from shoal.statistics import Accumulator, make_baseline

NAMES = ["a", "b"]


@pytest.fixture
def plant(tmp_path):
    """A recorder of a release whose baseline is a standard normal; time is `plant.seconds`."""
    random = np.random.default_rng(1)
    training = random.normal(0, 1, (4000, 2)).astype(np.float32)
    baseline = make_baseline(training, training[:, :1], NAMES, ["y"])
    files = {"m.tflite": b"model", "baseline.json": encode_baseline(baseline)}
    manifest = Manifest(
        model="pump",
        version="1.0",
        sequence=1,
        created="2026-01-01T00:00:00+00:00",
        files=file_entries(files),
        variants=[Variant(name="v", file="m.tflite")],
        contract=Contract(
            features=[Feature(name=name) for name in NAMES], outputs=[OutputField(name="y")]
        ),
        baseline="baseline.json",
        capture=CapturePolicy(drift=0.25, per_day=100),
    )
    for entry in manifest.files:
        (tmp_path / entry.sha256).write_bytes(files[entry.name])
    plant = SimpleNamespace(seconds=0.0, random=random, baseline=baseline)
    clock = Clock(Known(0, 10**12), wall=lambda: 10**12, monotonic=lambda: plant.seconds)
    plant.store = CaptureStore(tmp_path / "captures.sqlite", 2**20)
    plant.recorder = Recorder(plant.store, clock)
    plant.release = StagedRelease(manifest, "a" * 64, manifest.variants[0], tmp_path)
    yield plant
    plant.store.close()


def _report(plant, shift, rows=600):
    """A closed window of data that lies `shift` deviations beside the training data."""
    counter = Accumulator(NAMES, [one.edges for one in plant.baseline.features], [(None, None)] * 2)
    counter.update(plant.random.normal([shift, 0], 1, (rows, 2)).astype(np.float32))
    plant.recorder.note(SimpleNamespace(release=plant.release, features=counter.take()))


def _see(plant, windows=5):
    """Show a batch; how many captures there are after it."""
    if plant.recorder.wants(plant.release):
        values = array.array("f", [0.0] * windows).tobytes()
        answer = InferAnswer(windows, 1, 0, 0, bytes(windows), values, b"")
        rows = array.array("f", [0.0] * 2 * windows).tobytes()
        plant.recorder.see(plant.release, answer, [], rows, list(range(windows)), 0)
    return [one.reason for one in plant.store.find("pump", 0, 10**15, 100)]


def test_nothing_is_kept_while_data_is_as_it_was_in_training(plant):
    _report(plant, 0.0)
    assert _see(plant) == []


def test_one_window_a_second_is_kept_while_data_drifts(plant):
    _report(plant, 2.0)
    plant.seconds = 10.0
    assert _see(plant) == ["drift"]
    plant.seconds = 10.5
    assert _see(plant) == ["drift"]
    plant.seconds = 11.1
    assert _see(plant) == ["drift", "drift"]


def test_it_ends_with_the_drift_and_with_another_release(plant):
    _report(plant, 2.0)
    plant.seconds = 10.0
    assert len(_see(plant)) == 1
    _report(plant, 0.0)
    plant.seconds = 20.0
    assert len(_see(plant)) == 1
    _report(plant, 2.0)
    plant.release = replace(plant.release, manifest_sha256="b" * 64)
    plant.seconds = 30.0
    assert len(_see(plant)) == 1


def test_a_baseline_that_cannot_be_read_keeps_nothing_and_breaks_nothing(plant):
    entry = plant.release.manifest.file("baseline.json")
    (plant.release.folder / entry.sha256).unlink()
    _report(plant, 5.0)
    plant.seconds = 10.0
    assert _see(plant) == []
