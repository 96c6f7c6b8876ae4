"""`systemd/install.sh` in a private root: installs, runs again, upgrades, and goes back.

The environments are real (this project, built and installed by pip). `systemctl` is a stand-in that
starts the agent that /opt/shoal points at, as the unit would, and knows whether it became ready:
there is no systemd to ask here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.contract, pytest.mark.timeout(300)]

SYSTEMCTL = """#!{python}
import os, sys
from pathlib import Path
folder = Path(os.environ["STAND_IN"])
with (folder / "calls").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
verb = sys.argv[1]
if verb == "restart":
    broken = folder / "broken"
    runs = os.readlink(Path(os.environ["DESTDIR"]) / "opt" / "shoal")
    ready = not broken.exists() or broken.read_text() != runs
    (folder / "active").write_text("yes" if ready else "no")
elif verb == "is-active":
    sys.exit((folder / "active").read_text() != "yes")
elif verb == "show":
    print(0)
"""
WHEEL = """
[project]
name = "shoal"
version = "{version}"
requires-python = ">=3.11"
[project.optional-dependencies]
agent = []
[project.scripts]
shoal-agent = "tiny_agent:main"
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.build.targets.wheel]
only-include = ["tiny_agent.py"]
"""


class Machine:
    """A private root, a stand-in for systemctl, and wheels to install."""

    def __init__(self, folder: Path, script: Path) -> None:
        self.folder, self.script = folder, script
        self.root, self.bin = folder / "root", folder / "bin"
        for path in (self.root, self.bin):
            path.mkdir()
        program = self.bin / "systemctl"
        program.write_text(SYSTEMCTL.format(python=sys.executable))
        program.chmod(0o755)
        (folder / "active").write_text("no")

    def wheel(self, version: str, works: bool = True) -> Path:
        """A distribution of this name that says its version, or cannot even do that."""
        source = self.folder / f"source-{version}"
        source.mkdir()
        (source / "pyproject.toml").write_text(WHEEL.format(version=version))
        body = f"print({version!r})" if works else "raise SystemExit(3)"
        (source / "tiny_agent.py").write_text(f"def main():\n    {body}\n")
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", self.folder],
            cwd=source,
            check=True,
            capture_output=True,
        )
        return self.folder / f"shoal-{version}-py3-none-any.whl"

    def install(self, wheel: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        return subprocess.run(
            [self.script, "--wheel", wheel, *options],
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "DESTDIR": str(self.root),
                "STAND_IN": str(self.folder),
                "SHOAL_PYTHON": sys.executable,
                "SHOAL_HEALTHY_SECONDS": "1",
            },
        )

    def enrol(self) -> None:
        """As enrolment leaves it."""
        (self.root / "var/lib/shoal/broker.json").write_text("{}")

    def break_next(self) -> None:
        """The environment that is made next never becomes ready."""
        numbers = [int(path.name.rpartition("-")[2]) for path in self.environments()]
        (self.folder / "broken").write_text(f"shoal-agent-{max(numbers) + 1}")

    def environments(self) -> list[Path]:
        """All there are."""
        return sorted((self.root / "opt").glob("shoal-agent-*"))

    def version(self) -> str:
        """What /opt/shoal runs."""
        program = self.root / "opt/shoal/bin/shoal-agent"
        result = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        return result.stdout.strip()

    def calls(self) -> list[str]:
        """What systemctl was asked."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path, repository_root):
    """A machine without an agent."""
    return Machine(tmp_path, repository_root / "systemd" / "install.sh")


def test_first_an_install_then_upgrades_forth_and_back(machine, repository_root):
    first = machine.install(machine.wheel("1.0.0"))
    assert first.returncode == 0, first.stderr
    assert "not enrolled yet" in first.stderr
    assert machine.version() == "1.0.0"
    assert not any(call.startswith("restart") for call in machine.calls())
    unit = machine.root / "etc/systemd/system/shoal-agent.service"
    assert unit.read_bytes() == (repository_root / "systemd/shoal-agent.service").read_bytes()
    assert (machine.root / "var/lib/shoal").stat().st_mode & 0o777 == 0o700
    config = machine.root / "etc/shoal/agent.toml"
    config.write_text("# mine\n")

    machine.enrol()
    (machine.root / "opt/shoal").unlink()  # as a venv made by hand
    shutil.move(machine.root / "opt/shoal-agent-1", machine.root / "opt/shoal")
    second = machine.install(machine.wheel("1.1.0"))
    assert second.returncode == 0, second.stderr
    assert "1.1.0 runs" in second.stderr
    assert config.read_text() == "# mine\n"
    assert [path.name for path in machine.environments()] == ["shoal-agent-0", "shoal-agent-1"]

    before = machine.environments()
    for nothing in (machine.wheel("2.0.0", works=False), machine.folder / "absent.whl"):
        refused = machine.install(nothing)
        assert (refused.returncode, machine.version()) == (1, "1.1.0")
        assert "nothing was changed" in refused.stderr
    assert machine.environments() == before

    machine.break_next()
    third = machine.install(machine.wheel("1.2.0"))
    assert third.returncode == 1
    assert "going back to shoal-agent-1" in third.stderr
    assert machine.version() == "1.1.0"
    assert (machine.folder / "active").read_text() == "yes"

    fourth = machine.install(machine.wheel("1.3.0"))
    assert fourth.returncode == 0, fourth.stderr
    assert machine.version() == "1.3.0"
    assert [path.name for path in machine.environments()] == ["shoal-agent-1", "shoal-agent-3"]


def test_with_a_lock_only_what_it_pins_is_installed_and_only_by_its_hash(machine, repository_root):
    pins = (repository_root / "locks" / "build.lock").read_text()
    lock = machine.folder / "agent.lock"
    lock.write_text(re.search(r"^pluggy==(.|\n {4})*", pins, re.M)[0] + "\n")
    wheel = machine.wheel("1.0.0")
    done = machine.install(wheel, "--lock", lock)
    assert done.returncode == 0, done.stderr
    (environment,) = machine.environments()
    assert list(environment.glob("lib/*/site-packages/pluggy"))

    for text in (re.sub(r"sha256:\w{64}", "sha256:" + "0" * 64, lock.read_text()), "pluggy\n"):
        lock.write_text(text)
        refused = machine.install(wheel, "--lock", lock)
        assert refused.returncode == 1
        assert "nothing was changed" in refused.stderr
        assert machine.environments() == [environment]


def test_the_example_configuration_is_valid(repository_root):
    from agent.config import load_config

    config = load_config(repository_root / "systemd" / "agent.example.toml")
    assert (config.device, config.models) == ("gw-1", [])
