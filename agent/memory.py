"""How much memory there is for one more worker."""

from __future__ import annotations

import psutil

SPARE_SHARE = 0.15
SPARE_BYTES = 64 * 2**20


def has_room_to_spare() -> bool:
    """Whether a worker that does not answer may stay: 15 % and 64 MiB are left without it."""
    memory = psutil.virtual_memory()
    return bool(memory.available >= max(SPARE_SHARE * memory.total, SPARE_BYTES))
