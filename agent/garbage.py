"""Which files of releases may go: those that no slot needs, by age and by their total size."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class GarbageLimits:
    """How long, and how much, may lie about that no slot needs."""

    max_age_seconds: float = 86400.0
    max_bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A file that no slot needs."""

    name: str
    size: int
    age_seconds: float


def choose_garbage(unneeded: list[Unneeded], limits: GarbageLimits) -> list[str]:
    """Names to delete: everything too old, then the oldest until the rest fits."""
    left = sum(one.size for one in unneeded)
    gone = []
    for one in sorted(unneeded, key=lambda one: -one.age_seconds):
        if one.age_seconds > limits.max_age_seconds or left > limits.max_bytes:
            gone.append(one.name)
            left -= one.size
    return gone


def collect_garbage(files: Path, kept_manifests: set[str], limits: GarbageLimits) -> int:
    """Delete what `choose_garbage` says of a files folder; return how many files.

    A kept manifest that cannot be read names nothing, so then nothing is deleted at all.
    """
    kept = set(kept_manifests)
    try:
        for sha256 in kept_manifests:
            path = files / sha256
            if path.exists():
                manifest = msgspec.json.decode(path.read_bytes())
                kept |= {entry["sha256"] for entry in manifest["files"]}
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return 0
    unneeded = []
    for path in files.iterdir():
        if path.name.removesuffix(".part") not in kept:
            with contextlib.suppress(OSError):  # an updater may have renamed it
                facts = path.stat()
                age = max(time.time() - facts.st_mtime, 0.0)
                unneeded.append(Unneeded(path.name, facts.st_size, age))
    gone = choose_garbage(unneeded, limits)
    for name in gone:
        with contextlib.suppress(OSError):
            (files / name).unlink()
    return len(gone)


async def collect_daily(
    files: Path, kept_manifests: Callable[[], set[str]], limits: GarbageLimits
) -> None:
    """Delete what no slot needs once a day, for ever."""
    while True:
        await asyncio.sleep(DAY_SECONDS)
        collect_garbage(files, kept_manifests(), limits)
