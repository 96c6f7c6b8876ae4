"""A real Prometheus scrapes a real controller: every dashboard and alert finds what it names."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from local_fleet import processes
from local_fleet.ports import HOST, free_ports
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert

from controller.app import build_app, build_services
from controller.config import load_settings
from controller.database import writing
from controller.people.roles import VIEWER
from controller.schema import (
    alerts,
    device_models,
    devices,
    executions,
    health,
    rejections,
    rollouts,
    statistics,
    waves,
)
from controller.setup import add_api_token, initialise
from tests.unit.controller.conftest import Signers

pytestmark = pytest.mark.contract

TOKEN = "secret of prometheus"
WAIT_SECONDS = 60.0
WORD = re.compile(r"\b(shoal_\w+|process_\w+|python_\w+)\b")
MATCHERS = re.compile(r"\{([^{}]*)\}")
GROUPS = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
OF_THE_SCRAPE = {"instance", "job", "le"}
QUIET = {"ShoalDown", "ShoalHttpErrors", "HTTP: errors of ours"}
"""They name a failure that the controller of this test does not have."""


@pytest.fixture(scope="module")
def integrations(repository_root: Path) -> Path:
    """What the documents offer to other tools."""
    return repository_root / "docs" / "integrations"


@pytest.fixture(scope="module")
def tool(repository_root: Path) -> Any:
    """`tool("promtool")`: a program of Debian's package prometheus."""

    def find(name: str) -> str:
        own = repository_root / ".venv-tools" / name
        found = str(own) if own.exists() else shutil.which(name)
        assert found, f"{name} is missing: scripts/test unpacks it from the package prometheus"
        return found

    return find


def _row(table: Any, **values: Any) -> tuple[Any, dict[str, Any]]:
    return table, values


def _busy_fleet(services: Any) -> None:
    """A little of everything that a metric tells of."""
    now = services.now_ms()
    rollout = {
        "model": "pump", "release_sequence": 2, "version": "2.0", "selector": "*", "options": {},
        "excluded": [], "created_ms": now, "created_by": "ann", "updated_ms": now,
    }  # fmt: skip
    sent = {"ts_ms": now, "received_ms": now, "cpu_ratio": 0, "memory_available_bytes": 0,
            "agent_pss_bytes": 0, "workers_pss_bytes": 0, "outbox_rows": 0}  # fmt: skip
    counted = {"model": "pump", "version": "1", "release_sequence": 1, "slot": "active",
               "baseline": "", "start_ms": now, "end_ms": now, "received_ms": now, "rows": 1,
               "lost": 0, "features": [], "outputs": []}  # fmt: skip
    rows = [
        _row(devices, device="gw-1", site="jfk", public_key=b"k", enrolled_ms=now, online=True,
             status="failing", last_seen_ms=now),
        _row(device_models, device="gw-1", model="pump", active_version="1.0",
             rows_per_second=2.0, failed_ratio=0.1, latency_p95_us=90.0, drift=0.5),
        _row(rollouts, rollout="r-1", state="running", **rollout),
        _row(executions, rollout="r-1", device="gw-1", attempt=1, wave=1, state="succeeded",
             updated_ms=now),
        _row(waves, rollout="r-1", number=1, name="canary", state="soaking", size=1,
             gates=[{"name": "failed rows", "verdict": "fail"}]),
        _row(alerts, scope="site", subject="jfk", model="pump", family="inputs", field="t",
             kind="mean", sentence="", evidence={}, started_ms=now, opened_ms=now),
        _row(rejections, device="gw-1", channel="state", code="wrong-site", count=3, example="",
             first_ms=now, last_ms=now),
        _row(health, device="gw-1", **sent),
        _row(statistics, device="gw-1", **counted),
    ]  # fmt: skip
    with writing(services.engine) as connection:
        for table, values in rows:
            connection.execute(insert(table), values)


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a controller's web server; nobody may look without a token."""
    folder = tmp_path_factory.mktemp("controller")
    path = folder / "controller.toml"
    path.write_text('[web]\nanonymous = "none"\n')
    initialise(load_settings(path))
    add_api_token(load_settings(path), "prometheus", VIEWER, TOKEN)
    services = build_services(load_settings(path))
    services.parts |= {"ingest": True, "director": True, "broker": True}
    Signers(services).publish_first()
    _busy_fleet(services)
    with services.metrics.tick_seconds.time():
        pass
    server = uvicorn.Server(uvicorn.Config(build_app(services), log_config=None, lifespan="off"))
    listener = socket.socket()
    listener.bind((HOST, 0))
    listener.listen()  # from now on: who comes before the server waits
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"{HOST}:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    services.engine.dispose()


@pytest.fixture(scope="module")
def prometheus(
    controller: str, integrations: Path, tool: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A Prometheus as the documents configure it, but faster, after three scrapes."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "shoal.token").write_text(TOKEN)
    config = yaml.safe_load((integrations / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [
        str(integrations / "prometheus" / name) for name in config["rule_files"]
    ]
    job = config["scrape_configs"][0]
    job["authorization"]["credentials_file"] = str(folder / "shoal.token")
    job["static_configs"] = [{"targets": [controller]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_ports(1)[0]
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    child = processes.start("prometheus", command, folder)
    client = httpx.Client(base_url=f"http://{HOST}:{port}/api/v1", timeout=30.0)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not _scraped(client):
            assert child.running, child.tail()
            assert time.monotonic() < deadline, child.tail()
            time.sleep(0.2)
        yield client
    finally:
        client.close()
        processes.stop([child])


def _scraped(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        if not client.get(client.base_url.join("/-/ready")).is_success:
            return False  # while it starts it answers every query with words
        found = _query(client, 'count_over_time(up{job="shoal"}[1m])')
        return bool(found) and float(found[0]["value"][1]) >= 3
    return False


def _query(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = client.get("/query", params={"query": expression})
    document = answer.json()
    assert document.get("status") == "success", f"{expression}: {answer.text}"
    return list(document["data"]["result"])


def _dashboards(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(panel, expression, legend) of every target."""
    for path in sorted((folder / "grafana" / "dashboards").glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for panel in document["panels"]:
            for target in panel["targets"]:
                yield panel["title"], target["expr"], target["legendFormat"]


def _rules(folder: Path) -> Iterator[tuple[str, str, str]]:
    document = yaml.safe_load((folder / "prometheus" / "shoal.rules.yml").read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            words = " ".join(rule["annotations"].values())
            labels = " ".join(f"{{{{{name}}}}}" for name in re.findall(r"\$labels\.(\w+)", words))
            yield rule["alert"], rule["expr"], labels


def test_every_metric_and_label_that_is_named_is_in_a_scrape(controller, integrations):
    for _ in range(2):  # the second tells of the first
        answer = httpx.get(
            f"http://{controller}/metrics", headers={"authorization": f"Bearer {TOKEN}"}
        )
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    for title, expression, legend in [*_dashboards(integrations), *_rules(integrations)]:
        names = set(WORD.findall(expression))
        assert names or "up" in expression, title
        assert names <= set(labels), f"{title}: {names - set(labels)}"
        known = OF_THE_SCRAPE.union(*(labels[name] for name in names))
        used = {word for text in GROUPS.findall(expression) for word in re.findall(r"\w+", text)}
        used |= {part.split("=")[0].strip("!~ ") for text in MATCHERS.findall(expression)
                 for part in re.findall(r"\w+\s*(?:=~|!=|!~|=)", text)}  # fmt: skip
        used |= set(re.findall(r"\{\{(\w+)\}\}", legend))
        assert used <= known, f"{title}: {used - known}"


def test_every_panel_shows_something(prometheus, integrations):
    for title, expression, _ in _dashboards(integrations):
        plain = re.sub(r"\$(site|model)\b", ".*", expression)
        found = _query(prometheus, plain)
        assert found or title in QUIET, f"{title}: {plain} finds nothing"


def test_prometheus_takes_the_rules_and_the_controller_sets_some_of_them_off(prometheus):
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = _query(prometheus, "ALERTS")
        names = {one["metric"]["alertname"] for one in found}
        if names >= {"ShoalGateFailed", "ShoalDevicesFailing", "ShoalDriftOfManyDevices"}:
            break
        assert time.monotonic() < deadline, names
        time.sleep(0.2)
    assert "ShoalDown" not in names
    groups = prometheus.get("/rules").json()["data"]["groups"]
    assert [one for group in groups for one in group["rules"] if one["health"] == "err"] == []


def test_promtool_finds_the_rules_right_and_their_tests_pass(tool, integrations):
    for words in (["check", "rules", "shoal.rules.yml"], ["test", "rules", "shoal.rules.test.yml"]):
        done = subprocess.run(
            [tool("promtool"), *words],
            cwd=integrations / "prometheus",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_are_ready_to_be_provisioned(integrations):
    documents = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (integrations / "grafana" / "dashboards").glob("*.json")
    ]
    assert len({one["uid"] for one in documents}) == len(documents) == 4
    for one in documents:
        assert "id" not in one  # Grafana gives it
        assert len({panel["id"] for panel in one["panels"]}) == len(one["panels"])
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in one["panels"])
    for path in (integrations / "grafana" / "provisioning").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1
