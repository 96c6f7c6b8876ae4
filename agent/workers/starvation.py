"""Telling a hung worker from one that only waits for a processor.

Linux counts how long a runnable task has waited on a run queue (`/proc/<pid>/schedstat`, second
field, ns). That time is not held against a worker's deadline, up to a cap: a device where a dozen
models load at once is slow, not broken. A stopped or blocked process waits on no run queue, so a
real hang is noticed as fast as before.
"""

from __future__ import annotations

import os

MAX_GRACE = 10.0
"""Deadlines that a starved worker gets at most."""
_WORTH_WAITING_SECONDS = 0.005


class Starvation:
    """Time that a worker, or we ourselves, waited for a processor since this was made."""

    def __init__(self, pid: int, deadline_seconds: float) -> None:
        self._pid = pid
        self._worker, self._own = _waited(pid), _waited("self")
        self._left = deadline_seconds * (MAX_GRACE - 1)
        self._granted = 0.0

    def grant(self) -> float:
        """Seconds more to wait, 0 when the deadline stands."""
        starved = max(_waited(self._pid) - self._worker, _waited("self") - self._own)
        more = min(starved - self._granted, self._left)
        if more < _WORTH_WAITING_SECONDS:
            return 0.0
        self._granted += more
        self._left -= more
        return more


def _waited(pid: int | str) -> float:
    try:
        # twice a micro-batch: no more than the three calls
        handle = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(handle, 128).split()[1]) / 1e9
        finally:
            os.close(handle)
    except (OSError, IndexError, ValueError):  # gone, or a kernel without the counters
        return 0.0
