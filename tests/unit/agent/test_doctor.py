"""`shoal-agent doctor` and `check-config`: what is wrong, where, and what to do about it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from agent.config import inspect_config
from agent.config_reader import find_lines
from agent.doctor import examine
from agent.doctor.runtime import SAMPLES
from agent.lock import hold, is_held
from agent.prepare import prepare_state
from shoal.errors import ShoalError
from shoal.tflite.writer import Dense, write_float32


@pytest.fixture
def config(tmp_path):
    """A configuration whose broker and controller are not there."""
    path = tmp_path / "agent.toml"
    path.write_text(
        f"""
[device]
id = "gw-1"
site = "jfk"
state_dir = "{tmp_path / "state"}"

[controller]
url = "http://127.0.0.1:9"

[report]
window_seconds = 5

[models.pump]
source = {{ kind = "csv", path = "/tmp/x.csv" }}
[[models.pump.actions]]
kind = "mqtt"
""",
        encoding="utf-8",
    )
    return path


def _command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


def test_every_check_says_what_to_do(config, tmp_path):
    prepare_state(tmp_path / "state")
    found = {one.name: one for one in examine(config)}
    assert found["configuration"].ok
    assert found["state folder"].ok, found["state folder"]
    assert found["runtime"].ok, found["runtime"]
    assert found["profile"].ok
    assert found["outbox"].ok
    for name in ("credentials", "broker", "controller"):
        assert not found[name].ok
        assert found[name].fix
    assert "enrol" in found["credentials"].fix
    (tmp_path / "state").chmod(0o755)
    (tmp_path / "state" / "outbox.sqlite").write_bytes(b"broken" * 1000)
    again = {one.name: one for one in examine(config)}
    assert "chmod 700" in again["state folder"].fix
    assert not again["outbox"].ok


def test_the_command_prints_json_and_fails(config):
    result = _command("doctor", "--json", "--config", str(config))
    document = json.loads(result.stdout)
    assert (result.returncode, document["ok"]) == (1, False)
    assert {one["name"] for one in document["checks"]} >= {"broker", "clock", "disk", "runtime"}


def test_without_a_configuration_that_is_all_it_says(tmp_path):
    (only,) = examine(tmp_path / "absent.toml")
    assert (only.name, only.ok) == ("configuration", False)
    assert "check-config" in only.fix


def test_the_tiny_model_is_what_the_writer_makes_of_it(repository_root):
    path = repository_root / "agent" / "doctor" / "tiny.tflite"
    assert path.read_bytes() == write_float32([Dense(np.eye(2, dtype="f4") * 2, np.ones(2, "f4"))])
    assert [[2 * v + 1 for v in row] for row in SAMPLES["inputs"]] == SAMPLES["outputs"]


def test_each_value_is_printed_with_its_origin(config):
    result = _command(
        "check-config", "--json", "--config", str(config), SHOAL_AGENT_REPORT_HEALTH_SECONDS="7"
    )
    assert result.returncode == 0, result.stderr
    found = {one["key"]: one for one in json.loads(result.stdout)["values"]}
    assert (found["device.id"]["value"], found["device.id"]["origin"]) == ("gw-1", "agent.toml:3")
    assert found["report.window_seconds"]["origin"] == "agent.toml:11"
    assert found["report.health_seconds"] == {
        "key": "report.health_seconds",
        "value": 7,
        "origin": "environment SHOAL_AGENT_REPORT_HEALTH_SECONDS",
    }
    assert found["workers.num_threads"]["origin"] == "default"
    assert found["models.pump.source.path"]["origin"] == "agent.toml:14"
    assert found["models.pump.actions.0.kind"]["origin"] == "agent.toml:16"


def test_all_mistakes_are_told_together(config):
    text = config.read_text().replace('id = "gw-1"', 'id = "GW 1"').replace("= 5", "= 0")
    config.write_text(text + "\n[reports]\nx = 1\n")
    result = _command("check-config", "--config", str(config))
    assert result.returncode == 1
    assert len([one for one in result.stderr.splitlines() if one.startswith("mistake: ")]) == 3
    assert "device.site" in result.stdout


def test_a_file_that_is_no_toml_is_one_mistake(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text("[device\n")
    values, problems = inspect_config(path)
    assert values == []
    assert len(problems) == 1


def test_lines_of_odd_layouts_are_found():
    text = '\n[ "a" . b ]\nc = 1\nd.e = 2\n[[l]]\nx = 1\n[[l]]\nx = 2\n'
    assert find_lines(text) == {
        "a.b": 2,
        "a.b.c": 3,
        "a.b.d.e": 4,
        "l": 5,
        "l.0": 5,
        "l.0.x": 6,
        "l.1": 7,
        "l.1.x": 8,
    }


def test_two_agents_never_share_a_state_folder(tmp_path):
    assert not is_held(tmp_path)
    with hold(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(ShoalError) as caught, hold(tmp_path):
            pass
        assert caught.value.code == "locked"
    assert not is_held(tmp_path)
