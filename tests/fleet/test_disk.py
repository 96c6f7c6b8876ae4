"""A disk that fills up under a running agent: it goes on answering and telling, and recovers."""

from __future__ import annotations

import resource
from itertools import pairwise

import psutil
import pytest

FULL = (4096, resource.RLIM_INFINITY)
EMPTY = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.mark.parametrize("fleet", ["nats"], indirect=True)
def test_an_agent_on_a_full_disk_goes_on_and_says_so(
    fleet, player, make_echo_package, write_numbers
):
    device = player("gw-full")
    source = {"kind": "csv", "path": str(write_numbers(100)), "rate_hz": 50, "loop": True}
    device.enrol({"echo-full": {"source": source}})
    device.start()
    device.run(make_echo_package("echo-full", fleet.signer))
    agent = psutil.Process(device.pid)
    agent.rlimit(resource.RLIMIT_FSIZE, FULL)  # no file of it may grow, as on a full disk
    device.wait(lambda: device.now()["status"] == "degraded", "says that its disk is full")
    assert "kept in memory" in device.now()["reason"]
    before = device.total("ok")
    device.wait(lambda: device.total("ok") > before + 50, "goes on answering and reporting")
    agent.rlimit(resource.RLIMIT_FSIZE, EMPTY)
    device.wait(lambda: device.now()["status"] == "ok", "is well again")
    windows = device.windows()
    assert sum(one["in_count"] for one in windows) == sum(one["ok"] for one in windows)
    for earlier, later in pairwise(windows):
        assert earlier["end_ms"] <= later["start_ms"]  # none is there twice
