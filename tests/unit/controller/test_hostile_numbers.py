"""What devices count is read again by gates, pages and summaries; no number stops them."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from controller import schema
from controller.database import reading, writing
from controller.drift import device_drift, severity, worst_field
from controller.ingest.fold import Folder
from controller.ingest.write import write_batch
from controller.rollouts.evidence import summarise as evidence
from controller.summaries import Summaries
from controller.summaries import summarise as summary
from shoal.baseline import Baseline, FieldBaseline, encode_baseline
from shoal.protocol.manifest import Requires
from shoal.protocol.messages import (
    FieldStatistics,
    ModelState,
    State,
    Statistics,
    Window,
    encode,
)

WHO = {"device": "gw-1", "site": "jfk", "boot_id": "b", "ts_ms": 1}
OF = {"model": "pump", "version": "1.0", "release_sequence": 1, "manifest": "0" * 64}
BASE = FieldBaseline(
    name="t", kind="continuous", edges=[0.0, 0.5, 1.0], counts=[1, 50, 50, 1], count=102
)


@pytest.fixture
def baseline(services):
    return services.artifacts.put(encode_baseline(Baseline(rows=102, features=[BASE], outputs=[])))


@pytest.fixture
def send(services, enrolled):
    """Messages of gw-1 through fold and write."""
    enrolled("gw-1")
    folder = Folder({"gw-1": "jfk"}, {})
    seq = iter(range(1, 10**9))

    def run(kind, **fields):
        message = kind(**WHO, **fields, seq=next(seq))
        topic = "shoal/v1/jfk/gw-1/" + {
            Window: "models/pump/window", Statistics: "models/pump/statistics", State: "state",
        }[kind]  # fmt: skip
        with writing(services.engine) as connection:
            batch = folder.fold([(topic, encode(message))], 1)
            assert batch.rejections == {}
            write_batch(connection, batch, folder.ranges, 1)

    return run


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**53)
FIELDS = st.builds(
    FieldStatistics,
    name=st.just("t"),
    count=COUNTS,
    missing=COUNTS,
    nonfinite=COUNTS,
    out_of_range=COUNTS,
    mean=FLOATS,
    m2=FLOATS,
    min=FLOATS,
    max=FLOATS,
    bins=st.lists(COUNTS, min_size=4, max_size=4) | st.lists(COUNTS, max_size=6),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fields=st.lists(FIELDS, max_size=3))
def test_drift_of_whatever_a_device_counted_can_be_answered(services, baseline, send, fields):
    for one in fields:
        send(Statistics, **OF, start_ms=0, end_ms=1, rows=1, baseline=baseline, features=[one])
    if not fields:
        return
    with reading(services.engine) as connection:
        document = device_drift(connection, services.artifacts, "gw-1", "pump")
    json.dumps(document, allow_nan=False)
    worst_field(document)


@pytest.mark.parametrize("said", ["not a digest", "0" * 64, "../../keys/director.key"])
def test_a_baseline_that_is_not_there_stops_no_summary(services, send, said):
    send(State, online=True, models=[ModelState(model="pump", active_sequence=1)])
    send(Window, **OF, start_ms=0, end_ms=1000, in_count=1, ok=1)
    send(Statistics, **OF, start_ms=0, end_ms=1, rows=1, baseline=said,
         features=[FieldStatistics(name="t", count=1)])  # fmt: skip
    assert Summaries(services.engine, services.artifacts).refresh() == 1


def test_a_file_that_is_no_baseline_stops_no_summary(services, send):
    digest = services.artifacts.put(b"a model, say")
    send(State, online=True, models=[ModelState(model="pump", active_sequence=1)])
    send(Statistics, **OF, start_ms=0, end_ms=1, rows=1, baseline=digest)
    send(Window, **OF, start_ms=0, end_ms=1000, in_count=1, ok=1)
    assert Summaries(services.engine, services.artifacts).refresh() == 1


def test_a_summary_is_made_of_the_newest_release_only(services, send):
    send(State, online=True, models=[ModelState(model="pump", active_sequence=2)])
    send(Window, **OF, start_ms=0, end_ms=1000, in_count=9, ok=0, failed={"x": 9})
    newer = OF | {"release_sequence": 2, "version": "2.0"}
    send(Window, **newer, start_ms=1000, end_ms=3000, in_count=10, ok=8, failed={"x": 2},
         labels={"normal": 6, "anomaly": 2}, latency_counts=[0, 8])  # fmt: skip
    summaries = Summaries(services.engine, services.artifacts)
    assert summaries.refresh() == 1
    with reading(services.engine) as connection:
        row = connection.execute(select(schema.device_models)).one()
    assert (row.failed_ratio, row.rows_per_second, row.anomaly_ratio) == (0.2, 5.0, 0.25)
    assert row.latency_p95_us == pytest.approx(14.1)
    assert summaries.refresh() == 0


WINDOWS = st.lists(
    st.builds(
        lambda **fields: type("Row", (), fields)(),
        ok=COUNTS,
        in_count=COUNTS,
        start_ms=COUNTS,
        end_ms=COUNTS,
        failed=st.dictionaries(st.sampled_from("ab"), COUNTS, max_size=2),
        labels=st.dictionaries(st.sampled_from(["anomaly", "b"]), COUNTS, max_size=2),
        latency_counts=st.lists(COUNTS, max_size=60),
    ),
    min_size=1,
    max_size=4,
)


@given(rows=WINDOWS)
def test_windows_of_any_counts_are_summarised(rows):
    json.dumps(summary(rows), allow_nan=False)
    evidence("gw-1", rows, [])


@pytest.mark.parametrize(
    ("value", "rows", "word"),
    [(None, 999, "too-little-data"), (9.0, 199, "too-little-data"), (0.0999, 200, "none"),
     (0.1, 200, "moderate"), (0.2499, 200, "moderate"), (0.25, 200, "strong")],
)  # fmt: skip
def test_severity_at_its_limits(value, rows, word):
    assert severity(value, rows) == word


# Facts

REQUIRING = {"memory_mb": 100, "disk_mb": 5, "runtime_version": "2.1"}


@pytest.mark.parametrize(
    "facts",
    [{"memory_mb": "lots"}, {"memory_mb": "nan"}, {"memory_mb": "inf", "disk_mb": ""},
     {"memory_mb": True}, {"runtime_version": "9" * 5000}, {"runtime_version": "²"},
     {"runtimes": 5}, {"memory_mb": -1.0}, {"memory_mb": 10**400}],
)  # fmt: skip
def test_a_device_with_odd_facts_is_left_out_and_stops_nobody(
    services, api, operator, enrolled, make_pump, release, facts
):
    enrolled("gw-1")
    enrolled("gw-2")
    good = {"memory_mb": 4000, "disk_mb": 900, "runtime_version": "2.1.0"}
    with writing(services.engine) as connection:
        for device, own in (("gw-1", facts), ("gw-2", good)):
            here = schema.devices.c.device == device
            connection.execute(schema.devices.update().where(here).values(facts=own))
    release(make_pump(requires=Requires(**REQUIRING)))
    body = {"model": "pump", "version": "1.0"}
    answer = api.post("/api/v1/rollouts/preview", json=body, headers=operator)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert [one["device"] for one in document["incompatible"]] == ["gw-1"]
    assert sum(wave["size"] for wave in document["waves"]) == 1


def test_devices_that_cannot_take_a_release_are_left_out_with_the_reason(
    services, api, operator, enrolled, make_pump, release
):
    for name, sequence in (("gw-1", 5), ("gw-2", 1), ("gw-3", None)):
        enrolled(name)
        if sequence:
            with writing(services.engine) as connection:
                row = {"device": name, "model": "pump", "active_sequence": sequence}
                connection.execute(insert(schema.device_models).values(**row))
    for number in (1, 2):
        release(make_pump(f"{number}.0", number))
    body = {"model": "pump", "version": "2.0", "selector": "device:gw-1,gw-2"}
    document = api.post("/api/v1/rollouts/preview", json=body, headers=operator).json()
    assert document["incompatible"] == [
        {"device": "gw-1", "sentence": "gw-1: runs release 5, which is newer than 2"}
    ]
    assert document["warnings"][0] == "1 devices are not selected"
    assert "too small, or too little known, to test failed rows" in document["warnings"][1]
    assert [wave["devices"] for wave in document["waves"]] == [["gw-2"], [], []]
