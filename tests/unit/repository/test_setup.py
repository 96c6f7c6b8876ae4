"""Set-up says in one sentence what is missing, and does nothing when nothing has changed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = ("bash", "env", "cat", "grep", "cut", "sha256sum", "flock", "dirname", "tee", "tail")

# Stands for an interpreter: answers the questions that the script asks, by version and modules.
PYTHON = """#!/bin/sh
case "$2" in
    *ensurepip*) exit {venv} ;;
    *print*) echo {minor} ;;
    *sys.argv*) exit {foreign} ;;
    *) [ "$1" = --version ] && echo "Python 3.{minor}.0" ;;
esac
"""


@pytest.fixture
def setup(repository_root, tmp_path):
    """Runs a copy of the set-up where PATH holds a few tools and perhaps a Python."""
    copy = tmp_path / "copy"
    for name in ("scripts/lib", "locks"):
        shutil.copytree(repository_root / name, copy / name)
    shutil.copy(repository_root / "pyproject.toml", copy)
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (programs / tool).symlink_to(found)

    def run(group: str, python: str | None = None) -> subprocess.CompletedProcess[str]:
        if python is not None:
            (programs / "python3").write_text(python)
            (programs / "python3").chmod(0o755)
        return subprocess.run(
            [str(copy / "scripts" / "lib" / "setup.sh"), group],
            env={"PATH": str(programs)},
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("group", "python", "sentence"),
    [
        ("demo", None, "no Python 3.11 to 3.13 found: apt-get install python3 python3-venv"),
        (
            "demo",
            PYTHON.format(minor=9, venv=0, foreign=1),
            "no Python 3.11 to 3.13 found, python3 is Python 3.9.0",
        ),
        (
            "demo",
            PYTHON.format(minor=11, venv=1, foreign=0),
            "Python 3.11.0 has no venv module: apt-get install python3-venv brings it",
        ),
        (
            "tflite-runtime",
            PYTHON.format(minor=12, venv=0, foreign=1),
            "no Python 3.11 found, python3 is Python 3.12.0",
        ),
        ("other", None, "no set-up named 'other': expected demo, test, tflite-runtime or audit"),
    ],
)
def test_says_in_one_sentence_what_is_missing(setup, group, python, sentence):
    result = setup(group, python)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"setup: {sentence}\n"


@pytest.mark.parametrize("group", ["demo", "test"])
def test_does_nothing_when_nothing_has_changed(setup, tmp_path, group):
    copy = tmp_path / "copy"
    files = ("locks/build.lock", f"locks/{group}.lock", "pyproject.toml")
    digest = hashlib.sha256(b"".join((copy / name).read_bytes() for name in files)).hexdigest()
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "python").symlink_to(Path(sys.executable))
    (copy / ".venv" / "setup.stamp").write_text(f"{group} {digest}\n")

    result = setup(group)

    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_begins_anew_when_a_lock_has_changed(setup, tmp_path):
    copy = tmp_path / "copy"
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "setup.stamp").write_text("demo " + "0" * 64 + "\n")
    assert "no Python 3.11 to 3.13" in setup("demo").stderr
