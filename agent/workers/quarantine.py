"""Windows that took two workers down, kept on the disk for whoever looks into it.

One file each: a line of JSON that says what happened, then the rows as little-endian float32. The
oldest go when there are too many; a disk that takes no more costs the file, never the agent.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.ports import StagedRelease
from agent.workers.frames import InferRequest


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A folder with at most so many files and bytes."""

    folder: Path
    max_files: int = 32
    max_bytes: int = 8 * 2**20

    def keep(
        self, release: StagedRelease, request: InferRequest, code: str, sentence: str
    ) -> Path | None:
        """Write a window down; the file, or None where it could not be."""
        head = {
            "model": release.manifest.model,
            "version": release.manifest.version,
            "manifest": release.manifest_sha256,
            "time_ms": time.time_ns() // 1_000_000,
            "code": code,
            "sentence": sentence,
            "carried": request.carried,
            "fresh": request.fresh,
            "width": request.width,
        }
        data = msgspec.json.encode(head) + b"\n" + request.values
        if len(data) > self.max_bytes:
            return None
        try:
            self.folder.mkdir(exist_ok=True)
            path = self._free_name(release)
            path.write_bytes(data)
            self._enforce()
        except OSError:
            return None
        return path

    def _free_name(self, release: StagedRelease) -> Path:
        stem = f"{time.time_ns():020d}-{release.manifest.model}"
        names = itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(1)))
        paths = (self.folder / f"{name}.window" for name in names)
        return next(path for path in paths if not path.exists())

    def _enforce(self) -> None:
        files = sorted(self.folder.glob("*.window"))  # by age, since names begin with the time
        sizes = [path.stat().st_size for path in files]
        while files and (len(files) > self.max_files or sum(sizes) > self.max_bytes):
            with contextlib.suppress(FileNotFoundError):
                files.pop(0).unlink()
            sizes.pop(0)


def read_window(path: Path) -> tuple[dict[str, str | int], InferRequest]:
    """What a quarantined file says, and the request that it holds."""
    line, _, values = path.read_bytes().partition(b"\n")
    head: dict[str, str | int] = msgspec.json.decode(line)
    return head, InferRequest(int(head["carried"]), int(head["fresh"]), int(head["width"]), values)
