"""Updates where no web server is reached: all of a device's metadata and files by the broker."""

from __future__ import annotations

import json

from local_fleet.agents import AgentSpec

NOBODY = "http://127.0.0.1:1/repository"


def test_a_device_that_reaches_only_the_broker_takes_releases(
    fleet, player, make_echo_package, write_numbers
):
    device = player("gw-broker-only")
    source = {"kind": "csv", "path": str(write_numbers(100)), "rate_hz": 50, "loop": True}
    models = {"echo-broker": {"source": source}}
    more = {"updates": {"transport": "auto", "grace_seconds": 60}}
    fleet.enrol([AgentSpec("gw-broker-only", "plant", models=models, more=more)])
    device.models = list(models)
    trust = fleet.agents["gw-broker-only"].folder / "state" / "trust.json"
    trust.write_text(json.dumps({**json.loads(trust.read_text()), "repository_url": NOBODY}))
    device.start()
    device.run(make_echo_package("echo-broker", fleet.signer))
    device.run(make_echo_package("echo-broker", fleet.signer, sequence=2))
    assert device.now()["models"][0]["active_version"] == "2.0.0"
