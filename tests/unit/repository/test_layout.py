"""The folder list is the architecture: what it promises is there, and starts."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib

import pytest

FOLDERS = (
    "shoal",
    "agent",
    "controller",
    "firmware_profiles",
    "systemd",
    "scripts",
    "tests/unit",
    "tests/contract",
    "tests/fleet",
    "tests/browser",
    "docs/decisions",
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_holds_something(repository_root, folder):
    assert any((repository_root / folder).iterdir())


def test_every_distributed_package_is_a_folder_with_a_docstring(repository_root, project):
    for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        first = (repository_root / name / "__init__.py").read_text()
        assert first.startswith('"""'), name


def test_every_command_names_a_module_that_exists(project):
    for command, target in project["project"]["scripts"].items():
        module = target.partition(":")[0]
        assert importlib.util.find_spec(module), f"{command}: no module {module}"


def test_every_extra_belongs_to_something(project):
    extras = set(project["project"]["optional-dependencies"])
    agents = {
        "agent",
        "agent-tflite-runtime",
        "agent-onnx",
        "agent-c",
        "agent-small",
        "agent-modbus",
    }
    assert extras == agents | {"controller", "client", "author", "demo"}


@pytest.mark.parametrize(
    "name",
    ["demo", "test", "check", "bench", "lock", "release", "audit", "reference", "lib/setup.sh"],
)
def test_script_is_executable_and_stops_at_the_first_error(repository_root, name):
    path = repository_root / "scripts" / name
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text


def test_continuous_integration_runs_the_same_command(repository_root):
    path = repository_root / ".ci" / "run"
    assert os.access(path, os.X_OK)
    assert path.read_text().rstrip().endswith('/scripts/test"')


def test_every_hardware_profile_is_toml_and_names_a_processor(repository_root):
    profiles = sorted((repository_root / "firmware_profiles").glob("*.toml"))
    assert len(profiles) >= 3
    for path in profiles:
        assert tomllib.loads(path.read_text())["arch"], path.name


def test_version_is_written_once(repository_root, project):
    changelog = (repository_root / "CHANGELOG.md").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert "## Unreleased" in changelog or f"## {project['project']['version']}" in changelog
