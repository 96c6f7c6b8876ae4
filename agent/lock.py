"""One agent a state folder: the kernel holds the lock, so a killed agent leaves none behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from shoal.errors import ShoalError

LOCK_NAME = "agent.lock"


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep `folder` to this process, or raise saying that another agent has it.

    A folder that cannot be written is not locked: then there is nothing to quarrel over.
    """
    handle = _open(folder)
    try:
        if handle is not None and not _take(handle):
            raise ShoalError(f"{folder}: another shoal-agent is running on it", code="locked")
        yield
    finally:
        if handle is not None:
            os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether an agent runs on `folder` now."""
    handle = _open(folder)
    if handle is None:
        return False
    try:
        return not _take(handle)
    finally:
        os.close(handle)


def _open(folder: Path) -> int | None:
    try:
        return os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
