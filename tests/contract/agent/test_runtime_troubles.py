"""A runtime that answers otherwise than it did, and one that takes all memory.

A third party's runtime `moody` multiplies its inputs by what a file says at each run, and takes
memory until it gets no more where its model says so.
"""

from __future__ import annotations

import pytest

from agent.golden import GoldenMark
from shoal.protocol.manifest import Shadow, Variant

pytestmark = pytest.mark.contract

DAY_MS = 86_400_000
RUNTIME = """
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent

def exhaust():
    held = []
    while True:
        held.append(bytearray(1 << 24))

class Engine:
    name, kernels, input_values, output_values = "moody", "numpy", 2, 2
    def __init__(self):
        self.version = (HERE / "version").read_text()
        self.eats = (HERE / "eats").read_text()
        if self.eats == "loading":
            exhaust()
    def run(self, inputs):
        x, y = inputs[:, 0], inputs[:, 1]
        if self.eats == "golden" and ((x == 3) & (y == 4)).any():
            exhaust()
        if self.eats == "shadow" and ((x == 50) & (y == 100)).any():
            exhaust()
        return np.array(inputs, np.float32) * np.float32((HERE / "gain").read_text())

class Adapter:
    name, kind = "moody", "moody"
    def available(self):
        return True
    def load(self, path, num_threads):
        return Engine()

adapter = Adapter()
"""
MOODY = [Variant(name="only", runtime="moody", file="model.tflite")]


@pytest.fixture
def moody(device, tmp_path, monkeypatch):
    """The runtime's folder, with its files `gain`, `version` and `eats`."""
    site = tmp_path / "site"
    information = site / "moody-1.dist-info"
    information.mkdir(parents=True)
    (information / "entry_points.txt").write_text("[shoal.runtimes]\nmoody.moody = moody:adapter\n")
    (site / "moody.py").write_text(RUNTIME)
    for name, text in (("gain", "1"), ("version", "1"), ("eats", "")):
        (site / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    device.facts["runtimes"] = "tflite,moody"
    return site


@pytest.mark.parametrize("when", ["a day later", "after a runtime change"])
async def test_golden_samples_that_fail_later_bring_the_release_before_back(
    device, repository, assign, moody, monkeypatch, when
):
    monkeypatch.setattr("agent.golden_watch.LOOK_SECONDS", 0.05)
    one, two = repository.publish(1), repository.publish(2, variants=MOODY)
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    device.manager.assign(assign(two))
    await device.until(lambda: device.versions == ("2.0.0", "1.0.0"))
    assert device.manager.degraded == ""
    digest = two.manifest_sha256
    await device.until(lambda: device.store.note("golden-echo", GoldenMark).manifest == digest)
    if when == "a day later":
        (moody / "gain").write_text("2")
        rows = device.totals["ok"]
        await device.until(lambda: device.totals["ok"] > rows + 50)
        assert device.answering == "2.0.0"  # nothing is due yet
        device.ahead_ms = DAY_MS + 1000
    else:
        await device.stop()
        (moody / "gain").write_text("2")
        (moody / "version").write_text("2")
        await device.start(assign(two))
    await device.until(lambda: device.manager.degraded)
    assert device.answering == "1.0.0"
    assert "2.0.0: 2 golden samples, worst difference" in device.manager.degraded
    assert device.manager.degraded.endswith("; 1.0.0 answers instead")
    (told,) = device.events("slot")
    assert (told.code, told.version, told.severity) == ("golden-mismatch", "2.0.0", "error")
    assert told.sentence == device.manager.degraded
    assert device.manager.state().active_version == "1.0.0"
    rows = device.totals["ok"]
    await device.until(lambda: device.totals["ok"] > rows + 50)
    await device.stop()
    assert device.lost == {}


async def test_golden_samples_that_still_hold_after_a_runtime_change_change_nothing(
    device, repository, assign, moody
):
    two = assign(repository.publish(2, variants=MOODY))
    await device.start(two)
    await device.until(lambda: device.versions[0] == "2.0.0")
    await device.stop()
    (moody / "version").write_text("2")
    await device.start(two)
    await device.until(lambda: device.answering == "2.0.0")
    rows = device.totals["ok"]
    await device.until(lambda: device.totals["ok"] > rows + 50)
    assert device.manager.running.facts.version == "2"
    assert (device.manager.degraded, device.events("slot")) == ("", [])


@pytest.mark.parametrize("stage", ["loading", "golden", "shadow"])
async def test_a_candidate_that_takes_all_memory_is_refused_while_the_active_one_answers(
    device, repository, assign, moody, stage
):
    await device.start(assign(repository.publish(1)))
    await device.until(lambda: device.versions[0] == "1.0.0")
    (moody / "eats").write_text(stage)
    device.manager.assign(assign(repository.publish(2, variants=MOODY, shadow=Shadow(rows=200))))
    await device.until_stage("refused")
    candidate = device.slots.candidate
    if stage == "shadow":
        assert candidate.code in ("shadow-disagreement", "worker-crashed")
        assert {one.code for one in device.events("worker")} >= {"worker-memory"}
    else:
        assert candidate.code == "worker-memory"
        assert "out of memory" in candidate.sentence
    await device.until(lambda: device.execution("2.0.0")[-1:] == ["rejected"])
    assert device.answering == "1.0.0"
    rows = device.totals["ok"]
    await device.until(lambda: device.totals["ok"] > rows + 50)
    await device.stop()
    assert device.lost == {}
