"""An agent that is killed early again and again: without models, but connected and updatable."""

from __future__ import annotations

import pytest

from agent.crashloop import MAX_STARTS


@pytest.mark.parametrize("fleet", ["nats"], indirect=True)
def test_an_agent_killed_early_again_and_again_starts_safe_and_leaves_it_for_a_newer_release(
    fleet, player, make_echo_package, write_numbers
):
    device = player("gw-safe")
    source = {"kind": "csv", "path": str(write_numbers(100)), "rate_hz": 50, "loop": True}
    device.enrol({"echo-safe": {"source": source}})
    device.start()
    device.run(make_echo_package("echo-safe", fleet.signer))
    for _ in range(MAX_STARTS - 1):  # the first run was ended by a kill too
        fleet.kill_agent("gw-safe")
        device.start()
    device.wait(lambda: "safe mode" in device.now()["reason"], "says that it is in safe mode")
    state = device.now()
    assert (state["online"], state["status"]) == (True, "failing")
    assert f"has started {MAX_STARTS} times without 5 healthy minutes" in state["reason"]
    assert device.events("agent")[0]["code"] == "safe-mode"
    before = device.total("in_count")

    device.run(make_echo_package("echo-safe", fleet.signer, sequence=2))
    device.wait(lambda: device.now()["status"] == "ok", "is well again")
    assert device.now()["models"][0]["active_version"] == "2.0.0"
    device.wait(lambda: device.total("ok") > before, "answers again")
    codes = [one["code"] for one in device.events("agent")]
    assert codes[0] == "safe-mode-over"
