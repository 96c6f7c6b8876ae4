"""What the tests of the repository itself read."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def project(repository_root: Path) -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((repository_root / "pyproject.toml").read_text())


@pytest.fixture(scope="session")
def tracked(repository_root: Path) -> list[Path]:
    """Every file under version control; of an unpacked archive, every file that is no artefact."""
    if (repository_root / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=repository_root, capture_output=True, check=True
        )
        names = listing.stdout.decode().split("\0")[:-1]
        return [path for name in names if (path := repository_root / name).is_file()]
    return [
        path
        for path in repository_root.rglob("*")
        if path.is_file() and not any(part.startswith(".venv") for part in path.parts)
    ]
