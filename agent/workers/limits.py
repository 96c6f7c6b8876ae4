"""What a worker may not exceed, set by itself before it loads; it cannot raise them again.

Address space, since nothing else stops a native allocation in time: a refused one is an error that
names its cause, where the kernel's way out of memory is a SIGKILL to somebody.
"""

from __future__ import annotations

import resource
from pathlib import Path

BASE_BYTES = 256 * 2**20
"""What a small model with its statistics may grow by, with much to spare."""
FACTOR = 4
"""Of the memory that a model is estimated to need."""


def allowance(estimated_bytes: int, configured_mb: int) -> int:
    """Bytes of address space that a worker may take on top of what the forkserver has."""
    return configured_mb * 2**20 if configured_mb else BASE_BYTES + FACTOR * estimated_bytes


def forbid_core_dumps() -> None:
    """A dump of a crashed model would hold sensor data, and fill the disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_address_space(more_bytes: int) -> None:
    """Let this process grow by so many bytes and no further."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
