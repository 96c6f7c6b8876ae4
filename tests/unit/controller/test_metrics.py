"""What Prometheus is told: complete, bounded, in its own formats, to whom it may be told."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from sqlalchemy import insert, update

from controller.app import build_services
from controller.config import load_settings
from controller.database import writing
from controller.metrics import fleet
from controller.metrics.snapshot import ModelFigures, take_snapshot
from controller.people.roles import VIEWER
from controller.schema import (
    alerts,
    device_models,
    devices,
    executions,
    rejections,
    rollouts,
    waves,
)
from controller.setup import add_api_token

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TWO_PROCESSES = """
import sys
from controller.metrics.process import ProcessMetrics
one = ProcessMetrics()
one.observe_request("GET", "/fleet", 200, 0.01)
if sys.argv[1:] == ["show"]:
    print(one.exposed().get_sample_value(
        "shoal_http_requests_total", {"method": "GET", "route": "/fleet", "status": "2xx"}))
"""


@pytest.fixture
def viewer(services):
    """Headers of a token that may look, as a scraper has."""
    add_api_token(services.settings, "prometheus", VIEWER, "secret of prometheus")
    return {"authorization": "Bearer secret of prometheus"}


@pytest.fixture
def scrape(services, api, viewer):
    """Scrapes anew; gives {(name, sorted labels): value}."""

    def run():
        services.snapshots._keep_until = 0.0
        answer = api.get("/metrics", headers=viewer)
        assert answer.status_code == 200, answer.text
        return {
            (one.name, *sorted(one.labels.items())): one.value
            for family in read_text(answer.text)
            for one in family.samples
        }

    return run


def _rollout(connection, state):
    row = {
        "rollout": "r-1", "model": "pump", "release_sequence": 2, "version": "2.0",
        "selector": "*", "state": state, "options": {}, "excluded": [],
        "created_ms": 1, "created_by": "ann", "updated_ms": 1,
    }  # fmt: skip
    connection.execute(insert(rollouts), row)
    gates = [{"name": "failed", "verdict": "pass"}, {"name": "latency", "verdict": "fail"}]
    wave = {"rollout": "r-1", "number": 1, "name": "canary", "state": "soaking", "size": 1}
    connection.execute(insert(waves), wave | {"gates": gates})
    done = {"rollout": "r-1", "device": "gw-1", "attempt": 1, "wave": 1, "state": "soaking"}
    connection.execute(insert(executions), done | {"updated_ms": 1})


def test_a_scrape_says_what_the_database_has(services, enrolled, scrape):
    enrolled("gw-1"), enrolled("gw-2", site="lga")
    with writing(services.engine) as connection:
        seen = {"online": True, "status": "ok", "last_seen_ms": services.now_ms()}
        connection.execute(update(devices).where(devices.c.device == "gw-1").values(**seen))
        model = {"device": "gw-1", "model": "pump", "active_version": "1.0", "drift": 0.4}
        connection.execute(insert(device_models), model | {"rows_per_second": 2.5})
        refused = {"device": "gw-1", "channel": "state", "code": "invalid-message", "example": ""}
        connection.execute(insert(rejections), refused | {"count": 3, "first_ms": 1, "last_ms": 1})
        alert = {
            "scope": "device", "subject": "gw-1", "model": "pump", "family": "inputs",
            "field": "t", "kind": "mean", "sentence": "", "evidence": {},
        }  # fmt: skip
        connection.execute(insert(alerts), alert | {"started_ms": 1, "opened_ms": 1})
        _rollout(connection, "running")
    found = scrape()
    assert found["shoal_devices", ("status", "ok")] == 1
    assert found["shoal_devices", ("status", "unknown")] == 1
    assert found["shoal_site_devices", ("site", "lga"), ("status", "unknown")] == 1
    assert found["shoal_devices_running", ("model", "pump"), ("version", "1.0")] == 1
    assert found["shoal_model_rows_per_second", ("model", "pump")] == 2.5
    assert found["shoal_model_drifted_devices", ("model", "pump")] == 1
    assert found["shoal_rollouts", ("state", "running")] == 1
    assert found["shoal_executions", ("model", "pump"), ("state", "soaking")] == 1
    assert found["shoal_gate_verdicts", ("gate", "latency"), ("verdict", "fail")] == 1
    assert found["shoal_alerts_open", ("kind", "mean"), ("scope", "device")] == 1
    assert found["shoal_ingest_refused_total", ("code", "invalid-message")] == 3
    assert found["shoal_trust_expiry_timestamp_seconds", ("role", "root")] > 1e9
    assert found["shoal_certificate_expiry_timestamp_seconds", ("certificate", "fleet-ca")] > 1e9
    assert found["shoal_database_size_bytes", ("file", "main")] > 0
    assert found["shoal_part_up", ("part", "database")] == 1


def test_both_formats_are_as_their_parsers_want_them(api, viewer):
    own = api.get("/metrics", headers=viewer)
    assert own.headers["content-type"].startswith("text/plain; version=")
    open_one = api.get("/metrics", headers=viewer | {"accept": OPENMETRICS})
    assert open_one.headers["content-type"].startswith("application/openmetrics-text")
    names = {one.name for one in read_openmetrics(open_one.text)}
    assert {"shoal_devices", "shoal_http_requests", "shoal_build"} & names
    assert {one.name for one in read_text(own.text)} >= {
        "shoal_devices",
        "shoal_engine_tick_seconds",
    }


def test_requests_are_counted_by_route_and_not_by_address(api, scrape, viewer):
    before = scrape()
    for name in ("gw-1", "gw-2", "gw-3"):
        api.get(f"/api/v1/devices/{name}", headers=viewer)
    for path in ("/nowhere", "/elsewhere"):
        api.get(path, headers=viewer)
    after = scrape()

    def more(route, status):
        key = "shoal_http_requests_total", ("method", "GET"), ("route", route), ("status", status)
        return after[key] - before.get(key, 0)

    assert more("/api/v1/devices/{device}", "4xx") == 3
    assert more("unmatched", "4xx") == 2
    assert not any("gw-1" in str(key) for key in after)


def test_somebody_without_a_role_is_told_nothing(api):
    answer = api.get("/metrics")
    assert answer.status_code == 401
    assert "shoal_devices" not in answer.text


@settings(max_examples=20)
@given(
    sites=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers(1, 3)),
    versions=st.integers(0, 60),
    models=st.integers(0, 60),
)
def test_labels_are_bounded_and_sums_are_kept(snapshot, sites, versions, models):
    rows = {(site, "ok"): count for site, count in sites.items()}
    rows |= {(f"site-{i:03}", "offline"): 1 for i in range(100)}
    figures = tuple(
        ModelFigures(f"m{m}", f"1.{v}", 1 + v % 3, 1.0, 0.5, 0.001, 1)
        for m in range(models)
        for v in range(versions)
    )
    one = replace(snapshot, fleet=rows, models=figures)
    registry = CollectorRegistry()
    registry.register(fleet.FleetCollector(one))
    found = {family.name: family.samples for family in registry.collect()}
    assert len(found["shoal_site_devices"]) <= (fleet.MOST_SITES + 1) * len(fleet.STATUSES)
    assert sum(s.value for s in found["shoal_site_devices"]) == sum(rows.values())
    most = (fleet.MOST_MODELS + 1) * (fleet.MOST_VERSIONS + 1)
    assert len(found["shoal_devices_running"]) <= most
    assert sum(s.value for s in found["shoal_devices_running"]) == sum(f.devices for f in figures)
    assert all(s.value == pytest.approx(0.5) for s in found["shoal_model_failed_ratio"])


@pytest.fixture(scope="module")
def snapshot(template):
    """Of an empty fleet."""

    services = build_services(load_settings(template / "controller.toml"))
    yield take_snapshot(services, 0)
    services.engine.dispose()


def test_processes_behind_one_port_add_up(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(*words):
        command = [sys.executable, "-c", TWO_PROCESSES, *words]
        return subprocess.run(
            command, env=environment, check=True, timeout=60, capture_output=True, text=True
        ).stdout

    run(), run()
    assert float(run("show")) == 3.0
