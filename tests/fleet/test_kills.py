"""Every window and every answer once in the database, whatever is killed in between.

The model answers with the row's own number, so the answers name every row that was read.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from itertools import pairwise

import pytest
from local_fleet.memory import PROC, children

ROWS = 3000
RATE_HZ = 200.0
"""Slow enough that a kill comes in the middle, also on a busy machine."""
ROUNDING_MS = 5
"""Steady time becomes wall time by adding two rounded numbers; a window lasts a second."""
SLOT_KEYS = ("model", "active_version", "active_sequence", "active_manifest", "last_good_version")


def _source(path, **more):
    return {"source": {"kind": "csv", "path": str(path), **more}, "actions": [{"kind": "mqtt"}]}


def _running(fleet):
    return json.loads((fleet.controller.folder / "controller.json").read_bytes())


def _kill_broker(fleet):
    os.kill(_running(fleet)["broker"]["pid"], signal.SIGKILL)


def _kill_ingest(fleet):
    """Once it runs: it may have ended with the broker, and be started again."""

    def killed():
        for pid in children(fleet.children["controller"].pid):
            with contextlib.suppress(OSError):  # it may just have ended
                if b"controller.ingest" in (PROC / str(pid) / "cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    return True
        return None

    fleet.wait_for(killed, 60.0, "ingest runs")


def _expect_whole_sequences(player, boots):
    found = player.boots()
    assert len(found) == boots
    for boot, ranges in found.items():
        assert [low for low, _ in ranges] == [1], (boot, ranges)


def _expect_apart(windows):
    for before, after in pairwise(windows):
        assert before["end_ms"] <= after["start_ms"] + ROUNDING_MS, (before, after)


def test_killed_broker_and_ingest_lose_and_double_nothing(
    fleet, player, make_echo_package, write_numbers
):
    device = player("gw-parts")
    device.enrol({"echo-parts": _source(write_numbers(ROWS), rate_hz=RATE_HZ)})
    device.start()
    device.run(make_echo_package("echo-parts", fleet.signer))
    for kill in (_kill_broker, _kill_ingest):
        so_far = device.total("in_count")
        kill(fleet)
        device.wait(lambda before=so_far: device.total("in_count") > before, "reports again")
    assert device.total("in_count") < ROWS, "the rows were all read before the kills"
    device.wait_until_settled()
    assert sorted(device.answers()) == [float(number) for number in range(ROWS)]
    assert device.total("in_count") == device.total("ok") == ROWS
    _expect_apart(device.windows())
    _expect_whole_sequences(device, 1)
    assert fleet.client.rejections() == []


def test_killed_agent_comes_back_as_it_was_and_counts_nothing_twice(
    fleet, player, make_echo_package, write_numbers
):
    device = player("gw-agent")
    path = write_numbers(ROWS)
    device.enrol({"echo-agent": _source(path, rate_hz=RATE_HZ)})
    device.start()
    packages = [make_echo_package("echo-agent", fleet.signer, sequence=n) for n in (1, 2)]
    device.run(*packages)
    before = device.now()
    assert device.events("pipeline") == [], "the rows were all read before the kill"
    fleet.kill_agent("gw-agent")
    restarted_ms = time.time_ns() // 1_000_000
    device.reconfigure({"echo-agent": _source(path, rate_hz=0)})  # to the end, with no more waiting
    device.start()
    device.wait_until_settled()
    after = device.now()
    assert _slots(after) == _slots(before)
    assert after["models"][0]["active_version"] == "2.0.0"
    assert after["models"][0]["last_good_version"] == "1.0.0"

    device.since_ms = 0
    windows = device.windows()
    _expect_apart(windows)
    late = [one for one in windows if one["end_ms"] > restarted_ms]
    early = [one for one in windows if one["end_ms"] <= restarted_ms]
    assert sum(one["in_count"] for one in late) == ROWS
    # The first life's answers are rows 0 to k, the second's all of them: each once.
    answers = device.answers()
    lost_tail = len(answers) - ROWS
    assert sum(one["ok"] for one in early) <= lost_tail
    assert sorted(answers) == sorted([*map(float, range(lost_tail)), *map(float, range(ROWS))])
    _expect_whole_sequences(device, 2)


def _slots(device):
    return [[model[key] for key in SLOT_KEYS] for model in device["models"]]


@pytest.mark.parametrize("fleet", ["nats"], indirect=True)
def test_killed_worker_is_told_and_costs_no_row(fleet, player, make_echo_package, write_numbers):
    device = player("gw-worker")
    device.enrol({"echo-worker": _source(write_numbers(ROWS), rate_hz=RATE_HZ)})
    device.start()
    device.run(make_echo_package("echo-worker", fleet.signer))
    agent, worker = device.pid, device.worker_pid()
    os.kill(worker, signal.SIGKILL)
    told = device.wait(lambda: device.events("worker"), "tells of the lost worker")
    assert [(one["code"], one["severity"]) for one in told] == [("worker-crashed", "warning")]
    assert f"worker {worker}: died of signal 9" in told[0]["sentence"]
    assert device.total("in_count") < ROWS, "the rows were all read before the kill"
    device.wait_until_settled()
    assert device.pid == agent
    assert device.worker_pid() != worker

    windows = device.windows()
    assert device.total("in_count") == device.total("ok") == ROWS
    assert sum(one["worker_restarts"] for one in windows) == 1
    assert sorted(device.answers()) == [float(number) for number in range(ROWS)]
    statistics = fleet.client.statistics("gw-worker", limit=1000)
    assert sum(one["rows"] + one["lost"] for one in statistics) == ROWS
    assert sum(one["lost"] for one in statistics) < ROWS / 2
    assert device.now()["status"] == "ok"
