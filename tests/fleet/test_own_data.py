"""Somebody's own data, by the commands of the documents: trained, packaged, replayed, compared."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_fleet import processes
from local_fleet.agents import COMMAND as AGENT
from local_fleet.fleet import LocalFleet
from local_fleet.processes import Child

from shoal.tflite.writer import Dense, write_float32, write_int8

COMMAND_SECONDS = 150.0
SKAB_RUNS = {
    "gw-valve": [f"valve1/{number}.csv" for number in range(8)],
    "gw-other": ["other/1.csv", "other/2.csv", "other/4.csv", "other/5.csv"],
    "gw-pump": ["other/3.csv"],
}
"""Device to the runs it replays; the times of no two runs on a device overlap."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _environment(fleet: LocalFleet) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SHOAL_URL": fleet.url,
        "SHOAL_TOKEN_FILE": str(fleet.controller.token_file),
        "SHOAL_KEY_PASSPHRASE_FILE": str(fleet.controller.folder / "passphrase"),
    }


def _bash(fleet: LocalFleet, folder: Path, commands: str) -> str:
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=_environment(fleet),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _replay(path: Path, **pace: Any) -> dict[str, Any]:
    source = {"kind": "csv", "path": str(path), "delimiter": ";", "time_column": "datetime"}
    actions = [] if pace else [{"kind": "mqtt"}]
    return {"skab": {"source": source | pace, "actions": actions}}


def _join(parts: list[Path], path: Path) -> int:
    """Write runs one after the other under one header; return how many rows."""
    texts = [part.read_text(encoding="utf-8").splitlines() for part in parts]
    rows = [line for lines in texts for line in lines[1:]]
    path.write_text("\n".join([texts[0][0], *rows]) + "\n", encoding="utf-8")
    return len(rows)


@pytest.fixture
def own_controller(tmp_path, request):
    """A controller without a root, in a folder where an author works."""
    folder = tmp_path / "author"
    with LocalFleet(folder, broker=request.param) as fleet:
        fleet.start_controller(with_root=False)
        (fleet.controller.folder / "passphrase").write_text("of these tests alone")
        yield fleet


@pytest.mark.parametrize("fleet", ["mosquitto"], indirect=True)
def test_every_labelled_row_is_answered_once_and_compared_with_its_label(
    fleet, player, shared_data, tmp_path
):
    skab = shared_data / "skab"
    key = fleet.folder / "keys" / "release.key"
    _bash(
        fleet,
        tmp_path,
        f"shoal train autoencoder {skab}/anomaly-free.csv --time-column datetime --name skab "
        f"--model-version 1.0.0 --sequence 1 --key {key} --out skab-1.shoal\n"
        f"shoal release push skab-1.shoal --targets-key {fleet.folder}/keys/targets.key "
        f"--passphrase-file {fleet.folder}/keys/passphrase",
    )
    devices = {name: player(name) for name in SKAB_RUNS}
    for device in devices.values():  # a device takes a model in normal times; some runs are not
        device.enrol(_replay(skab / "anomaly-free.csv", rate_hz=100.0, loop=True))
        device.start()
    created = _bash(
        fleet,
        tmp_path,
        "shoal rollout create skab 1.0.0 --json --soak-seconds 0.5 --probation-seconds 1 "
        f"--selector device:{','.join(SKAB_RUNS)} --wave 100%",
    )
    ended = fleet.client.wait_for_rollout(json.loads(created)["rollout"], timeout=150.0)
    assert ended["state"] == "succeeded", ended["reason"]
    rows = {}
    for name, device in devices.items():
        device.stop()
        path = tmp_path / f"{name}.csv"
        rows[name] = _join([skab / run for run in SKAB_RUNS[name]], path)
        device.reconfigure(_replay(path))
        device.start()
    for name, runs in SKAB_RUNS.items():
        device = devices[name]
        device.wait_until_settled()
        assert device.total("in_count") == device.total("ok") == rows[name]
        files = " ".join(str(skab / run) for run in runs)
        command = (
            f"shoal evaluate {name} skab {files} --time-column datetime --label-column anomaly "
            f"--normal {skab}/anomaly-free.csv"
        )
        print(_bash(fleet, tmp_path, command))
        found = json.loads(_bash(fleet, tmp_path, command + " --json"))
        _expect_every_row_once(found, [skab / run for run in runs])
        _expect_alarms(device, found[-1], rows[name])


def _expect_every_row_once(found, files):
    for one, file in zip(found, files, strict=False):
        labels = np.genfromtxt(file, delimiter=";", names=True, dtype=None, encoding="utf-8")
        assert (one["name"], one["rows"]) == (file.name, len(labels))
        assert one["anomalies"] == int(labels["anomaly"].sum())
    assert len(found) == len(files) + (len(files) > 1)
    for one in found:
        assert one["answered"] == one["rows"]
        assert one["answered_again"] == one["strangers"] == 0


def _expect_alarms(device, whole, rows):
    """The windows counted as many alarms as the rates say, from messages of their own."""
    counted = sum(one["labels"].get("anomaly", 0) for one in device.windows())
    quality, anomalies = whole["quality"], whole["anomalies"]
    hits = anomalies * (1 - quality["missed_alarm_rate"])
    false = (rows - anomalies) * quality["false_alarm_rate"]
    assert counted == round(hits) + round(false)
    assert quality["f1"] == pytest.approx(2 * hits / (hits + false + anomalies))


@pytest.mark.parametrize("own_controller", ["nats"], indirect=True)
def test_the_tutorial_works_as_it_stands(own_controller, repository_root):
    """Every block in order; only the controller's address is this test's own."""
    text = (repository_root / "docs" / "tutorials" / "your-own-csv.md").read_text(encoding="utf-8")
    author = Author(own_controller)
    try:
        for kind, body in BLOCK.findall(text):
            author.follow(kind, body)
    finally:
        author.stop_agent()
    client, folder = own_controller.client, own_controller.controller.folder
    assert {one["version"] for one in client.model("pump")["releases"]} == {"1.0.0", "1.1.0"}
    assert {one["state"] for one in client.rollouts()} == {"succeeded"}
    assert (folder / "pump-3.shoal").exists()
    print(author.printed["shoal evaluate"])
    assert "pump-run.csv" in author.printed["shoal evaluate"]


@pytest.mark.parametrize("own_controller", ["mosquitto"], indirect=True)
def test_the_commands_of_the_readme_work_as_they_stand(own_controller, repository_root):
    tutorial = (repository_root / "docs" / "tutorials" / "your-own-csv.md").read_text("utf-8")
    csv = next(body for kind, body in BLOCK.findall(tutorial) if kind == "python")
    readme = (repository_root / "README.md").read_text("utf-8")
    commands = next(body for _, body in BLOCK.findall(readme) if "shoal keys create" in body)
    *making, rollout = _lines(commands)
    author = Author(own_controller)
    author.follow("python", csv)
    for line in making:
        author.run(line)
    try:  # the device of the tutorial; the readme leaves it to there
        for kind, body in BLOCK.findall(tutorial):
            if (kind == "toml" and 'path = "pump.csv"' in body) or "shoal-agent enrol" in body:
                author.follow(kind, body)
        author.run(rollout, to_its_end=False)
    finally:
        author.stop_agent()
    assert [one["version"] for one in own_controller.client.rollouts()] == ["1.0.0"]


def _lines(commands: str) -> list[str]:
    return commands.replace("\\\n", "").splitlines()


class Author:
    """Does what a document says, in the controller's folder, with one device beside it."""

    def __init__(self, fleet: LocalFleet) -> None:
        self.fleet = fleet
        self.folder = fleet.controller.folder
        self.printed: dict[str, str] = {}
        """The first two words of a command to what it printed last."""
        self._agent: Child | None = None

    def follow(self, kind: str, body: str) -> None:
        """One block of the document, by what it is."""
        config = self.folder / "agent.toml"
        if kind == "python":
            subprocess.run([sys.executable, "-c", body], cwd=self.folder, check=True)
        elif kind == "toml" and "[device]" in body:
            config.write_text(body.replace("http://127.0.0.1:8080", self.fleet.url))
            self._start_again()
        elif kind == "toml" and "inject]]" in body:
            config.write_text(config.read_text() + "\n" + body)
            self._start_again()
            self._wait_for_event("injected-fault")
        elif kind == "toml":
            (self.folder / "pump.toml").write_text(body)
            _write_wear_model(self.folder)
        elif kind == "sh" or body.startswith("shoal package"):
            for line in _lines(body):
                self.run(line)

    def run(self, line: str, *, to_its_end: bool = True) -> None:
        """One command; what it starts is waited for."""
        if line.startswith("shoal-agent run"):
            self._start_agent()
            return
        if line.startswith("shoal evaluate"):
            self._wait_for_event("source-ended")
        words = " ".join(line.split()[:2])
        self.printed[words] = _bash(self.fleet, self.folder, line)
        if line.startswith("shoal rollout create") and to_its_end:
            newest = self.fleet.client.rollouts()[0]["rollout"]
            ended = self.fleet.client.wait_for_rollout(newest, timeout=COMMAND_SECONDS)
            assert ended["state"] == "succeeded", ended["reason"]

    def stop_agent(self) -> None:
        """End the device's agent, if it runs."""
        if self._agent is not None:
            processes.stop([self._agent])

    def _start_again(self) -> None:
        if self._agent is not None:
            self.stop_agent()
            self._start_agent()

    def _start_agent(self) -> None:
        command = [AGENT[0], "run", "--config", "agent.toml"]
        self._agent = processes.start("gw-1", ["env", "-C", self.folder, *command], self.fleet.logs)

    def _wait_for_event(self, code: str) -> None:
        def seen() -> bool | None:
            events = self.fleet.client.device_events("gw-1", limit=1000)
            sent = (self.fleet.client.device("gw-1")["health"] or {}).get("ts_ms", 0)
            at = [one["ts_ms"] for one in events if one["code"] == code]
            return bool(at and sent > max(at) + 1000) or None  # what was answered is sent by then

        self.fleet.wait_for(seen, COMMAND_SECONDS, f"event {code}")


def _write_wear_model(folder):
    random = np.random.default_rng(3)
    layer = Dense(np.full((1, 3), 0.1, "f4"), np.full(1, 0.5, "f4"))
    (folder / "pump.tflite").write_bytes(write_float32([layer]))
    calibration = random.normal(0, 1, (500, 3)).astype("f4")
    (folder / "pump-int8.tflite").write_bytes(write_int8([layer], calibration))
