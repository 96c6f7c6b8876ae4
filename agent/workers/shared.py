"""Rows that agent and worker see in the same memory, instead of being copied through a socket.

One region for each process, in `SLOTS` parts, of which a request under way holds one. It is a
sealed memfd: its size cannot be changed, and where the kernel knows how (5.1) nobody but the agent
can write, so a broken worker can neither crash the agent nor change rows that it has been given.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from agent.workers.frames import Bytes

SLOTS = 2
SLOT_BYTES = 512 * 1024
"""A whole micro-batch; what is larger goes through the socket."""
WORTH_BYTES = 8 * 1024
"""Less is copied faster than a slot is kept."""
_FUTURE_WRITE = 0x10
"""F_SEAL_FUTURE_WRITE, which `fcntl` of Python 3.11 does not name."""
_FIXED_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class SharedRows:
    """The agent's side of a region."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("shoal-rows", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, SLOTS * SLOT_BYTES)
        self._memory = mmap.mmap(self.descriptor, SLOTS * SLOT_BYTES)
        self._free = [slot * SLOT_BYTES for slot in range(SLOTS)]
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _FIXED_SIZE)
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _FUTURE_WRITE | fcntl.F_SEAL_SEAL)
        except OSError:
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)  # before Linux 5.1

    def put(self, rows: Bytes) -> int | None:
        """Copy rows into a free slot; its offset, or None where they must go by the socket."""
        if not self._free or not WORTH_BYTES <= len(rows) <= SLOT_BYTES:
            return None
        offset = self._free.pop()
        self._memory[offset : offset + len(rows)] = rows
        return offset

    def free(self, offset: int) -> None:
        """The request that held a slot has its answer, or will get none."""
        self._free.append(offset)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.descriptor)


def map_rows(descriptor: int) -> memoryview:
    """The worker's side: the region, read-only. Closes the descriptor."""
    region = mmap.mmap(descriptor, SLOTS * SLOT_BYTES, prot=mmap.PROT_READ)
    os.close(descriptor)
    return memoryview(region)
