"""Accuracy without labels of a release on its devices, from what they reported to the API."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import insert

from controller.database import writing
from controller.ingest.fold import Folder
from controller.ingest.write import write_batch
from controller.schema import releases
from shoal.baseline import Baseline, Calibration, FieldBaseline, encode_baseline
from shoal.protocol.manifest import (
    ClassScores,
    Contract,
    Feature,
    FileEntry,
    Manifest,
    OutputField,
    Variant,
)
from shoal.protocol.messages import FieldStatistics, ModelState, State, Statistics, encode

FIELD = FieldBaseline(
    name="confidence", kind="continuous", edges=[0.5, 0.7, 1.0], counts=[0, 100, 900, 0],
    count=1000, mean=0.9, min=0.5, max=1.0,
)  # fmt: skip
KNOWN = Calibration(output="confidence", counts=[0, 500, 500, 0], correct=[0, 300, 475, 0])
MANIFEST = Manifest(
    model="switch", version="1.0.0", sequence=1, created="2026-11-25T00:00:00+00:00",
    files=[FileEntry(name="m.tflite", sha256="0" * 64, length=1)],
    variants=[Variant(name="m", file="m.tflite")],
    contract=Contract(
        features=[Feature(name="x")], outputs=[OutputField(name="confidence")],
        postprocess=[ClassScores(classes=["off", "on"])],
    ),
)  # fmt: skip


@pytest.fixture
def published(services):
    """The release; its baseline's digest."""
    with writing(services.engine) as connection:
        connection.execute(
            insert(releases).values(
                model="switch", sequence=1, version="1.0.0", manifest_sha256="0" * 64,
                manifest_length=1, manifest=msgspec.to_builtins(MANIFEST), envelope=b"",
                signed_by=[], published_ms=0, published_by="test",
            )
        )  # fmt: skip
    baseline = Baseline(rows=1000, features=[], outputs=[FIELD], calibration=KNOWN)
    return services.artifacts.put(encode_baseline(baseline))


@pytest.fixture
def report(services, enrolled, published):
    """Let a device run the release and count scores: so many unsure and so many sure answers."""

    def run(device, unsure, sure, seq=1):
        enrolled(device)
        who = {"device": device, "site": "jfk", "boot_id": "b", "ts_ms": 1}
        scores = FieldStatistics(
            name="confidence", count=unsure + sure, mean=0.8, bins=[0, unsure, sure, 0]
        )
        state = State(**who, seq=1, online=True, models=[ModelState(
            model="switch", active_version="1.0.0", active_sequence=1)])  # fmt: skip
        statistics = Statistics(
            **who, seq=2, model="switch", version="1.0.0", release_sequence=1, start_ms=0, end_ms=1,
            rows=unsure + sure, baseline=published, outputs=[scores],
        )  # fmt: skip
        folder = Folder({device: "jfk"}, {})
        root = f"shoal/v1/jfk/{device}"
        messages = [(f"{root}/state", encode(state)),
                    (f"{root}/models/switch/statistics", encode(statistics))]  # fmt: skip
        with writing(services.engine) as connection:
            batch = folder.fold(messages, 1)
            assert batch.rejections == {}
            write_batch(connection, batch, folder.ranges, 1)

    return run


def test_a_device_and_its_fleet_are_told_with_an_interval(api, operator, report):
    for number, unsure in enumerate([900, 800, 1000, 900]):
        report(f"gw-{number}", unsure, 1000 - unsure)
    drift = api.get("/api/v1/devices/gw-0/drift?model=switch", headers=operator).json()
    one = drift["performance"]
    assert one["accuracy"] == pytest.approx(0.9 * 0.6 + 0.1 * 0.95)
    assert one["low"] < one["accuracy"] < one["high"] < one["reference"] == 0.775
    path = "/api/v1/models/switch/releases/1.0.0/performance"
    fleet = api.get(path, headers=operator).json()
    assert (fleet["devices_running"], fleet["devices_estimated"]) == (4, 4)
    assert fleet["accuracy"] == pytest.approx(0.635)
    assert fleet["low"] < 0.635 < fleet["high"]
    assert fleet["sentence"].startswith("About 63.5% right (")
    assert "the right answer to the same data has not changed" in fleet["sentence"]


def test_devices_that_cannot_be_told_are_counted_with_the_reason(api, operator, report):
    path = "/api/v1/models/switch/releases/1.0.0/performance"
    report("gw-0", 50, 50)
    found = api.get(path, headers=operator).json()
    assert (found["accuracy"], found["code"]) == (None, "too-little-data")
    assert (found["devices_estimated"], found["devices_refused"]) == (0, 1)
    report("gw-1", 0, 1000)
    found = api.get(path, headers=operator).json()
    assert (found["devices_estimated"], found["devices_refused"]) == (1, 1)
    assert (found["low"], found["high"]) == (None, None)


def test_a_release_that_nobody_runs_says_so(api, operator, published):
    path = "/api/v1/models/switch/releases/1.0.0/performance"
    found = api.get(path, headers=operator).json()
    assert (found["accuracy"], found["code"]) == (None, "no-statistics")
