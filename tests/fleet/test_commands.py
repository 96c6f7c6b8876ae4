"""Commands to one device, over a real broker: logs, a bundle without secrets, options."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from typer.testing import CliRunner

from shoal.cli.app import app
from shoal.client import ApiError
from shoal.package import make_package
from shoal.protocol.manifest import CapturePolicy

SECRET = "hunter2-hunter2"


@pytest.fixture
def device(player, make_echo_package, write_numbers):
    """A running device that answers rows, with a secret in its configuration."""
    one = player("asked")
    source = {"kind": "csv", "path": str(write_numbers(200)), "rate_hz": 50, "loop": True}
    log = {"kind": "file", "path": f"/nowhere/https://me:{SECRET}@host/log"}
    hook = {"kind": "webhook", "url": f"http://127.0.0.1:9/hook?token={SECRET}"}
    one.enrol({"asked-model": {"source": source, "actions": [log, hook]}})
    one.start()
    package = make_echo_package("asked-model", one.fleet.signer)
    policy = CapturePolicy(one_in=10, per_day=50, redact=["half"])
    manifest = msgspec.structs.replace(package.manifest, capture=policy)
    contract = msgspec.structs.replace(
        manifest.contract,
        features=[
            manifest.contract.features[0],
            msgspec.structs.replace(manifest.contract.features[1], missing="fill", fill=-1.0),
        ],
    )
    manifest = msgspec.structs.replace(manifest, contract=contract)
    one.run(make_package(manifest, package.files, one.fleet.signer))
    return one


def _ask(device, order, seconds=90.0):
    return device.fleet.client.ask_device(device.device, order, timeout=seconds)


def _secrets(device):
    state = device.fleet.agents[device.device].folder / "state"
    key = (state / "device.key").read_text().strip()
    pem = (state / "identity.pem").read_text().partition("-----END PRIVATE KEY")[0]
    return {pem.splitlines()[1], key, base64.b64decode(key).hex(), SECRET}


def test_a_device_is_asked_and_answers(device):
    client = device.fleet.client
    logs = _ask(device, {"kind": "log-tail", "lines": 50})
    assert "started device=asked" in logs["text"]
    bundle = _ask(device, {"kind": "support-bundle"})
    document = bundle["document"]
    assert document["slots"]["asked-model"]["active"]["version"] == "1.0.0"
    assert document["outbox"]["trouble"] == ""
    checks = {one["name"]: one for one in document["doctor"]["checks"]}
    for name in ("configuration", "credentials", "broker", "controller", "runtime", "outbox"):
        assert checks[name]["ok"], checks[name]
    for secret in _secrets(device):
        assert secret not in bundle["text"]
        assert secret not in logs["text"]
    assert "[device]" in document["configuration"]
    with pytest.raises(ApiError) as caught:
        _ask(device, {"kind": "replay", "model": "asked-model", "capture": "none"})
    assert caught.value.code == "no-capture"
    listed = client.commands(device.device)
    assert [one["state"] for one in listed] == ["refused", "answered", "answered"]
    assert all("text" not in one for one in listed)
    for wrong in ({"kind": "reboot"}, {"kind": "log-tail", "lines": 0}, {}):
        with pytest.raises(ApiError):
            client.command_device(device.device, wrong)
    audit = [one for one in client.audit(limit=50) if one["action"] == "device.command"]
    assert len([one for one in audit if one["subject"] == device.device]) == 3


def test_captured_samples_are_pulled_and_run_again(device, tmp_path):
    client = device.fleet.client

    def pulled():
        _ask(device, {"kind": "capture-range", "model": "asked-model", "limit": 5})
        return client.captures(device.device, model="asked-model")

    captures = device.wait(pulled, "sends what it captured")
    newest = captures[0]
    number = newest["outputs"]["number"]
    assert (newest["reason"], newest["redacted"]) == ("one-in", ["half"])
    assert newest["rows"] == [[number, None]]
    assert newest["outputs"]["half"] == number / 2
    answer = _ask(device, {"kind": "replay", "model": "asked-model", "capture": newest["capture"]})[
        "document"
    ]
    assert answer["captured"]["outputs"] == [number, number / 2]
    assert set(answer["slots"]) == {"active"}
    assert answer["slots"]["active"]["outputs"] == {"number": number, "half": -1.0}  # filled
    _check_command_line(device, newest["capture"], tmp_path)
    client.set_options(device.device, {"capture": False})


def _check_command_line(device, capture, tmp_path):
    """The operator's command says the same."""
    token = tmp_path / "token"
    token.write_text(device.fleet.controller.operator_token())
    environment = {"SHOAL_URL": device.fleet.url, "SHOAL_TOKEN_FILE": str(token)}
    runner, verbs = CliRunner(), []
    for verb in (
        ["logs", "asked", "--lines", "5"],
        ["bundle", "asked", "--out", str(tmp_path / "bundle.json")],
        ["captures", "asked", "asked-model", "--limit", "3"],
        ["replay", "asked", "asked-model", capture],
        ["options", "asked", "--set", "health_seconds=2", "--set", "log_level=info"],
    ):
        result = runner.invoke(app, ["device", *verb], env=environment)
        assert result.exit_code == 0, result.output
        verbs.append(result.output)
    assert verbs[0].count("\n") >= 5
    assert json.loads((tmp_path / "bundle.json").read_text())["device"] == "asked"
    assert verbs[2].count("one-in") == 3
    assert verbs[3].startswith("captured   1.0.0")
    assert '"health_seconds": 2' in verbs[4]


def test_options_from_afar_take_effect_and_are_given_back(device):
    client = device.fleet.client
    options = client.set_options(device.device, {"window_seconds": 0.5, "log_level": "debug"})
    assert options == {
        "window_seconds": 0.5,
        "health_seconds": options["health_seconds"],
        "capture": options["capture"],
        "log_level": "debug",
    }

    def short():
        found = device.windows()[-3:]
        return len(found) == 3 and all(one["end_ms"] - one["start_ms"] < 900 for one in found)

    device.wait(short, "closes windows after half a second")
    with pytest.raises(ApiError):
        client.set_options(device.device, {"window_seconds": 0.0001})
    with pytest.raises(ApiError):
        client.set_options(device.device, {"device_id": "other"})
    assert client.set_options(device.device, {"window_seconds": None})["window_seconds"] is None
