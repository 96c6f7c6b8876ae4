"""Hardware profiles: every fact with a source, mistakes named, and what a device says of itself."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from agent.introspect import device_facts, installed_runtimes, with_free_memory
from shoal.errors import InvalidInputError
from shoal.profiles import (
    limit_facts,
    load_profile,
    parse_profile,
    profile_facts,
    profile_names,
    runtime_facts,
)
from shoal.protocol.manifest import Requires, Sensor

PROMISED = {
    "raspberry-pi-zero-2-w", "raspberry-pi-3-b-plus", "raspberry-pi-4", "raspberry-pi-5",
    "coral-dev-board", "jetson-orin-nano", "imx8m-plus", "x86-64-gateway", "armv7-gateway",
}  # fmt: skip
GOOD = 'title = "x"\narch = ["aarch64"]\nmemory_mb = 512\n'


def test_every_promised_profile_is_there():
    assert set(profile_names()) >= PROMISED


@pytest.mark.parametrize("name", profile_names())
def test_every_fact_of_a_profile_has_its_source(name):
    profile = load_profile(name)
    facts = {key for key in profile.__struct_fields__ if getattr(profile, key)}
    assert facts - {"name", "title", "sources"} == set(profile.sources)
    assert all(profile.sources.values())


def test_profiles_facts_and_requirements_share_their_keys():
    ours = set(profile_facts(load_profile("raspberry-pi-5")))
    device = set(device_facts("", Path()))
    assert ours - {"runtime_numpy", "runtime_tflite"} <= device
    needs = set(Requires.__struct_fields__) - {"operators"}
    assert needs <= ours


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "Invalid value"),
        (GOOD + "memory_gb = 1\n", "unknown field `memory_gb`"),
        (GOOD.replace("512", '"512"'), "Expected `int`, got `str` - at `$.memory_mb`"),
        (GOOD.replace('["aarch64"]', "[]"), "arch"),
        ('arch = ["aarch64"]\nmemory_mb = 1\n', "missing required field `title`"),
        (GOOD + '[runtimes]\ntensorflow = "2"\n', "runtimes.tensorflow: is not known"),
        (GOOD + '[sources]\ncolour = "red"\n', "sources.colour: is no fact"),
    ],
)
def test_a_mistake_in_a_profile_is_named(text, words):
    with pytest.raises(InvalidInputError, match="profile board") as caught:
        parse_profile("board", text)
    assert words in caught.value.sentence


def test_an_unknown_profile_is_answered_with_the_known_ones():
    with pytest.raises(InvalidInputError, match="raspberry-pi-5"):
        load_profile("raspberry-pi-99")


def test_a_device_offers_no_more_than_its_profile():
    profile = parse_profile("board", GOOD + "disk_mb = 4000\n")
    facts = {"arch": "x86_64", "memory_mb": 24000, "disk_mb": 900, "cpu_cores": 8}
    limited = limit_facts(facts, profile)
    assert limited == {"arch": "x86_64", "memory_mb": 512, "disk_mb": 900, "cpu_cores": 8}
    assert limit_facts(facts, None) == facts


def test_this_machine_says_what_it_is(tmp_path):
    sensors = [Sensor(name="flow", unit="l/min", rate_hz=10)]
    facts = with_free_memory(device_facts("", tmp_path, sensors))
    assert facts["arch"] == platform.machine()
    assert facts["python"] == platform.python_version()
    assert facts["sensors"] == "flow|l/min|10"
    assert 0 < facts["memory_free_mb"] <= facts["memory_mb"] * 4
    assert "numpy" in facts["runtimes"].split(",")
    assert facts["runtime_numpy"].startswith("numpy ")
    assert all(isinstance(value, str | int | float | bool) for value in facts.values())


def test_the_environment_that_chooses_runtimes_is_told_too(monkeypatch):
    every = list(installed_runtimes())
    monkeypatch.setenv("SHOAL_RUNTIMES", f"numpy,nothing,{every[0]}")
    assert list(installed_runtimes()) == ["numpy", every[0]]
    assert installed_runtimes()["numpy"]


def test_the_preferred_runtime_of_a_kind_speaks_for_it():
    found = runtime_facts({"ai-edge-litert": "2.3", "tflite-c": "2.17.1", "tflite.armnn": "24"})
    assert found["runtimes"] == "tflite"
    assert found["runtime_tflite"] == "ai-edge-litert 2.3"
    assert runtime_facts({"tflite.armnn": "24"})["runtime_tflite"] == "armnn 24"
    assert runtime_facts({})["runtimes"] == ""


def test_looking_at_the_device_imports_nothing_heavy():
    code = """
import json, sys
from pathlib import Path
from agent.introspect import device_facts
device_facts("raspberry-pi-4", Path("."))
heavy = {"numpy", "ai_edge_litert", "tflite_runtime", "onnxruntime", "importlib.metadata"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, timeout=60
    )
    assert json.loads(found.stdout) == []
