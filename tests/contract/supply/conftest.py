"""A repository of its own with this project in it, and a release that was built from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = str(Path(__file__).resolve().parents[3] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

from release_lib.folder import make_release  # noqa: E402 - lives in scripts/

from shoal.signing import FileSigner  # noqa: E402

BUILDER = "urn:shoal:builder:test"
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", ".demo"
)


@dataclass(frozen=True, slots=True)
class Released:
    """A release that nobody has touched yet."""

    repository: Path
    folder: Path
    signer: FileSigner


def git(repository: Path, *words: str) -> str:
    """Run git there, as somebody."""
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    command = ["git", *who, "-c", "init.defaultBranch=main", *words]
    done = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="session")
def repository(repository_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project as one commit, whatever the work tree is like."""
    copy = tmp_path_factory.mktemp("repository") / "shoal"
    shutil.copytree(repository_root, copy, ignore=LEFT_OUT)
    git(copy, "init", "-q")
    git(copy, "add", "--all")
    git(copy, "commit", "-q", "-m", "All of it")
    return copy


@pytest.fixture(scope="session")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Released:
    """One release, built once."""
    folder = tmp_path_factory.mktemp("release") / "shoal"
    signer = FileSigner.generate()
    make_release(repository, folder, signer, BUILDER)
    return Released(repository, folder, signer)


@pytest.fixture
def released(built: Released, tmp_path: Path) -> Released:
    """A copy of the release, to do with as one likes."""
    shutil.copytree(built.folder, tmp_path / "release")
    return Released(built.repository, tmp_path / "release", built.signer)
