"""The commit that is built, and wheel and sdist from it, the same bytes each time.

Only what is committed is built: from an export of the commit, with its time as SOURCE_DATE_EPOCH,
by the hatchling of locks/build.lock, without asking any network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from shoal.errors import InvalidInputError

GIT_SECONDS = 60
BUILD_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Source:
    """One commit of a repository."""

    repository: Path
    commit: str
    epoch: int


def find_source(repository: Path) -> Source:
    """What HEAD is; a work tree with changes is refused, since they would not be built."""
    commit = _git(repository, "rev-parse", "HEAD").decode().strip()
    changed = _git(repository, "status", "--porcelain").decode().splitlines()
    if changed:
        raise InvalidInputError(
            f"{repository}: {len(changed)} files differ from commit {commit[:12]} "
            f"({changed[0].strip()}, …): commit or remove them first",
            code="dirty",
        )
    epoch = int(_git(repository, "show", "-s", "--format=%ct", "HEAD"))
    return Source(repository, commit, epoch)


def export(source: Source, folder: Path) -> None:
    """Write the commit's files into a folder."""
    data = _git(source.repository, "archive", "--format=tar", source.commit)
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")


def version_of(folder: Path) -> str:
    """The version that the exported project has."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def build(source: Source, exported: Path, out: Path) -> None:
    """Build wheel and sdist into `out`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", out]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(source.epoch), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command,
        cwd=exported,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise InvalidInputError(f"build of {source.commit[:12]}: {' '.join(last)}")


def _git(repository: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", repository, *words], capture_output=True, check=False, timeout=GIT_SECONDS
        )
    except FileNotFoundError as error:
        raise InvalidInputError("git is not installed: a release is made from a commit") from error
    if done.returncode:
        sentence = done.stderr.decode(errors="replace").strip()
        raise InvalidInputError(f"{repository}: git {words[0]}: {sentence}")
    return done.stdout
