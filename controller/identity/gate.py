"""How often strangers may knock: a leaky bucket an address, in memory, for so many addresses.

Only what fails or waits is counted, so devices with good tokens come in at any rate.

>>> gate = Gate(Limit(burst=2, refill_seconds=60.0))
>>> [gate.knock("192.0.2.1", 0) for _ in range(3)]
[0, 0, 60]
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from controller.people.attempts import Limit, address_key

STRANGERS = Limit(burst=60, refill_seconds=1.0)
MAX_ADDRESSES = 10_000


class Gate:
    """Counts for each address; the one that was quiet longest is forgotten first."""

    def __init__(self, limit: Limit = STRANGERS) -> None:
        self._limit = limit
        self._levels: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def knock(self, address: str, now_ms: int) -> int:
        """Count one; 0, or after how many seconds the next is listened to."""
        key = address_key(address)
        with self._lock:
            level, at_ms = self._levels.pop(key, (0.0, now_ms))
            level = self._limit.level(level, now_ms - at_ms)
            wait = self._limit.wait_seconds(level)
            self._levels[key] = (level if wait else level + 1, now_ms)
            if len(self._levels) > MAX_ADDRESSES:
                self._levels.popitem(last=False)
        return wait
