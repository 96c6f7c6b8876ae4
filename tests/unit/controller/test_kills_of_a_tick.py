"""A process that dies at any statement of a tick changes nothing: the next one does it all."""

from __future__ import annotations

import os
import shutil
import sqlite3

import pytest
from sqlalchemy import event, insert

from controller import schema
from controller.app import build_services
from controller.config import load_settings
from controller.database import writing
from controller.ingest.write import upsert
from controller.rollouts.engine import Engine
from controller.rollouts.service import create
from controller.rollouts.values import parse_specification

NOW_MS = 1_800_000_000_000
KILLED = 137
TABLES = ("rollouts", "waves", "executions", "assignments", "desired", "settings")
OPTIONS = {
    "model": "pump", "version": "2.0", "on_failure": "pause", "max_failed_ratio": 0.5,
    "max_attempts": 2, "waves": [{"name": "canary", "devices": 2}, {"name": "all", "share": 1.0}],
}  # fmt: skip


@pytest.fixture
def folder(services, enrolled, make_pump, release, tmp_path):
    """A rollout under way: one canary has succeeded and one has failed, by their events."""
    services.clock = lambda: NOW_MS
    packages = {}
    for number in (1, 2):
        packages[number] = make_pump(f"{number}.0", number)
        release(packages[number])
    for number in range(5):
        enrolled(f"gw-{number}")
    rollout = create(services, parse_specification(OPTIONS), "ann")["rollout"]
    Engine(services).tick()
    with writing(services.engine) as connection:
        canaries = sorted(connection.scalars(schema.assignments.select()))
        for device, state in zip(canaries, ("succeeded", "failed"), strict=True):
            digest = packages[2].manifest_sha256
            row = {"active_version": "2.0", "active_sequence": 2, "active_manifest": digest}
            upsert(connection, schema.device_models, {"device": device, "model": "pump"}, row)
            connection.execute(insert(schema.events).values(
                device=device, ts_ms=1, received_ms=1, kind="execution", code=state,
                severity="info", sentence="", model="pump", rollout=rollout, attempt=1,
                data={"state": state, "intent": "update"},
            ))  # fmt: skip
    services.engine.dispose()
    return tmp_path / "controller"


def _tick(folder, later_ms, die_at=None):
    """Tick in a process of its own; return its exit code and how many statements it ran."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            services = build_services(load_settings(folder / "controller.toml"))
            services.clock = lambda: NOW_MS + later_ms
            count = 0

            def before(*_):
                nonlocal count
                if count == die_at:
                    os._exit(KILLED)
                count += 1

            event.listen(services.engine, "before_cursor_execute", before)
            event.listen(services.engine, "commit", before)
            Engine(services).tick()
            os.write(write, str(count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(told or 0)


def _everything(folder):
    connection = sqlite3.connect(folder / "data" / "shoal.sqlite")
    found = {
        name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}"))) for name in TABLES
    }
    connection.close()
    return found


@pytest.mark.parametrize("later_ms", [0, 100_000], ids=["reports come", "a retry is due"])
def test_a_tick_that_dies_at_any_statement_is_done_by_the_next(folder, tmp_path, later_ms):
    if later_ms:
        assert _tick(folder, 0)[0] == 0
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    code, statements = _tick(whole, later_ms)
    expected = _everything(whole)
    assert code == 0
    assert statements > 15
    assert expected != _everything(folder)
    for number in range(statements):
        copy = tmp_path / f"killed-{number}"
        shutil.copytree(folder, copy)
        assert _tick(copy, later_ms, die_at=number)[0] == KILLED
        assert _tick(copy, later_ms)[0] == 0
        assert _everything(copy) == expected, f"killed at statement {number}"
        shutil.rmtree(copy)
