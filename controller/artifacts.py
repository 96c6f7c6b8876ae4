"""Files of releases on disk, named by their SHA-256."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from controller.errors import NotFoundError
from controller.state_files import fsync_folder
from shoal.baseline import Baseline, decode_baseline
from shoal.ids import parse_digest
from shoal.package import sha256

KEPT_BASELINES = 64


class Artifacts:
    """One folder; a file is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> str:
        """Store bytes durably and return their hash."""
        digest = sha256(data)
        target = self._folder / digest
        if target.exists() and target.stat().st_size == len(data):
            return digest
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{digest}.{os.getpid()}.part"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o444)
        temporary.replace(target)
        fsync_folder(self._folder)
        return digest

    def path(self, digest: str) -> Path:
        """Where a file lies, or `NotFoundError`."""
        path = self._folder / parse_digest(digest)
        if not path.is_file():
            raise NotFoundError(f"file {digest[:12]}…: not in the repository")
        return path

    def baseline(self, digest: str) -> Baseline:
        """Read a baseline; the last ones asked for are kept decoded."""
        return _read_baseline(self.path(digest))


@lru_cache(maxsize=KEPT_BASELINES)
def _read_baseline(path: Path) -> Baseline:
    return decode_baseline(path.read_bytes())
