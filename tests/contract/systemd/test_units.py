"""The units are valid, run what the distribution installs, and give away no more than they must."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib

import pytest

from controller.broker.settings import TLS_NAMES

pytestmark = pytest.mark.contract

UNITS = ("shoal-agent.service", "shoal-controller.service")
HELPERS = ("shoal-broker.service",)
MAX_EXPOSURE = 2.0
"""Of systemd's own scale, 0 (sealed) to 10; anything above 5 it calls medium."""


@pytest.fixture
def analyze(repository_root, tmp_path):
    """Runs systemd-analyze on a copy of a unit whose program exists on this machine."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine")

    def run(unit: str, *options: str, replace=("", "")) -> subprocess.CompletedProcess[str]:
        text = (repository_root / "systemd" / unit).read_text().replace(*replace)
        copy = tmp_path / unit
        copy.write_text(re.sub(r"/opt/shoal/bin/\S+", "/bin/true", text))
        return subprocess.run(
            [program, *options, str(copy)], capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.mark.parametrize("unit", UNITS + HELPERS)
def test_systemd_accepts_every_line(analyze, unit):
    result = analyze(unit, "verify", "--man=no")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_exposure_stays_low(analyze, unit):
    result = analyze(unit, "security", "--offline=true", "--no-pager")
    level = re.search(r"exposure level for \S+: ([0-9.]+)", result.stdout)
    assert level, result.stderr
    assert float(level[1]) <= MAX_EXPOSURE, result.stdout


def test_verify_notices_a_wrong_line(analyze):
    result = analyze(UNITS[0], "verify", "--man=no", replace=("=strict", "=very"))
    assert "protect system" in result.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_starts_a_command_that_the_distribution_has(repository_root, unit):
    project = tomllib.loads((repository_root / "pyproject.toml").read_text())["project"]
    text = (repository_root / "systemd" / unit).read_text()
    started = re.search(r"^ExecStart=/opt/shoal/bin/(\S+)", text, re.MULTILINE)
    assert started
    assert started[1] in project["scripts"]


def test_a_worker_killed_for_memory_does_not_take_the_agent_along(repository_root):
    text = (repository_root / "systemd" / UNITS[0]).read_text()
    for line in ("OOMPolicy=continue", "Restart=always", "Type=notify", "WatchdogSec=60"):
        assert line in text.splitlines()


def test_broker_is_reloaded_when_the_file_that_the_controller_writes_changes(repository_root):
    text = (repository_root / "systemd" / "shoal-broker.path").read_text()
    watched = re.search(r"^PathChanged=(\S+)", text, re.MULTILINE)
    assert watched
    assert watched[1].endswith(f"/{TLS_NAMES[-1]}")  # certificates taken back
    assert "Unit=shoal-broker.service" in text.splitlines()
