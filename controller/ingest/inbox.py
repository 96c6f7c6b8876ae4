"""What has come and is not committed yet: paho's thread puts in, the main thread takes out.

Bounded: when it is full, paho's thread waits, so it stops reading and the broker keeps the rest.
Taking waits in steps of a millisecond rather than for each message: a batch costs a handful of
wake-ups instead of hundreds, and paho's thread has the interpreter to itself meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

IDLE_SECONDS = 0.1
STEP_SECONDS = 0.001


class Inbox(Generic[_Item]):
    """One producer, one consumer.

    >>> inbox = Inbox(most=10)
    >>> inbox.put("a"), inbox.put("b"), inbox.take(500, 0.0), inbox.empty
    (None, None, ['a', 'b'], True)
    """

    def __init__(self, most: int) -> None:
        self._items: deque[_Item] = deque()
        self._most = most
        self._news = threading.Event()
        self._room = threading.Event()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._items

    def put(self, item: _Item) -> None:
        """Add one; waits while there is no room."""
        self._items.append(item)
        if not self._news.is_set():
            self._news.set()
        while len(self._items) >= self._most:
            self._room.clear()
            if len(self._items) >= self._most:
                self._room.wait(IDLE_SECONDS)

    def take(self, most: int, gather_seconds: float) -> list[_Item]:
        """Wait a little for the first, then take what comes within `gather_seconds`."""
        if not self._items:
            self._news.clear()
            if not self._items and not self._news.wait(IDLE_SECONDS):
                return []
        deadline = time.monotonic() + gather_seconds
        while len(self._items) < most and time.monotonic() < deadline:
            time.sleep(STEP_SECONDS)
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        self._room.set()
        return taken
