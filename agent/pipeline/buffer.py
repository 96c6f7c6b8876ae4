"""Rows between source and model: bounded, so that a source faster than its model costs rows, not
memory.

`newest` keeps the latest rows and drops the oldest waiting; `oldest` keeps what waits and drops
what comes; `wait` makes the source wait. Rows that came one by one leave together, so a model that
is behind gets fuller micro-batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from agent.ports import Samples

Policy = Literal["newest", "oldest", "wait"]
MAX_BYTES = 4 * 1024 * 1024


class Buffer:
    """A queue of samples, each with the selection of features it was read for."""

    def __init__(self, max_rows: int, policy: Policy) -> None:
        self._max_rows = max_rows
        self._policy = policy
        self._parts: deque[tuple[list[str], Samples]] = deque()
        self._gone = 0
        """Rows of the first part that have left: cutting them off would copy all that stay."""
        self._filled = asyncio.Event()
        self._freed = asyncio.Event()
        self._closed = False
        self._overload = 0
        self.rows = 0

    async def put(self, names: list[str], samples: Samples) -> None:
        """Add rows; make room, or wait for it, as the policy says."""
        most = self._capacity(samples.width)
        if self._policy == "wait":
            while self.rows and self.rows + len(samples.times_ms) > most:
                self._freed.clear()
                await self._freed.wait()
        elif self._policy == "oldest" and self.rows + len(samples.times_ms) > most:
            room = max(most - self.rows, 0)
            self._overload += len(samples.times_ms) - room
            samples = cut(samples, 0, room)
            await asyncio.sleep(0)  # a source at full speed must not starve the loop
        if samples.times_ms:
            self._parts.append((names, samples))
            self.rows += len(samples.times_ms)
        if self.rows > most and self._policy == "newest":
            self._discard(self.rows - most)
            await asyncio.sleep(0)
        self._filled.set()

    async def wait(self) -> bool:
        """Wait for rows; False when there will be none any more."""
        while not self.rows and not self._closed:
            self._filled.clear()
            await self._filled.wait()
        return self.rows > 0

    def take(self, most: int) -> tuple[list[str], Samples] | None:
        """The oldest rows that were read alike, up to `most`; None when empty."""
        if not self._parts:
            return None
        names, first = self._parts[0]
        found: list[Samples] = []
        rows = 0
        while self._parts and rows < most:
            next_names, samples = self._parts[0]
            if next_names is not names or samples.width != first.width:
                break
            found.append(self._first_rows(most - rows))
            rows += len(found[-1].times_ms)
        self.rows -= rows
        self._freed.set()
        return names, _joined(found)

    @property
    def oldest_names(self) -> list[str] | None:
        """What the rows that leave next were read for; None when empty."""
        return self._parts[0][0] if self._parts else None

    def take_overload(self) -> int:
        """Rows dropped for want of room since the last call."""
        taken, self._overload = self._overload, 0
        return taken

    def clear(self) -> int:
        """Throw away what waits; return how many rows."""
        rows, self.rows = self.rows, 0
        self._parts.clear()
        self._gone = 0
        self._freed.set()
        return rows

    def close(self) -> None:
        """No more rows will come."""
        self._closed = True
        self._filled.set()

    def open(self) -> None:
        """Rows will come."""
        self._closed = False

    def _first_rows(self, most: int) -> Samples:
        """Up to `most` rows of the first part, which leave it."""
        samples, start = self._parts[0][1], self._gone
        end = min(start + most, len(samples.times_ms))
        self._leave(end - start)
        return cut(samples, start, end)

    def _leave(self, rows: int) -> None:
        self._gone += rows
        if self._gone == len(self._parts[0][1].times_ms):
            self._parts.popleft()
            self._gone = 0

    def _discard(self, rows: int) -> None:
        self._overload += rows
        self.rows -= rows
        while rows:
            here = min(rows, len(self._parts[0][1].times_ms) - self._gone)
            self._leave(here)
            rows -= here

    def _capacity(self, width: int) -> int:
        """Rows, and fewer of wide ones."""
        return max(min(self._max_rows, MAX_BYTES // max(width * 4, 1)), 64)


def _joined(parts: list[Samples]) -> Samples:
    if len(parts) == 1:
        return parts[0]
    times = [ms for part in parts for ms in part.times_ms]
    return Samples(times, b"".join(part.values for part in parts), parts[0].width)


def cut(samples: Samples, start: int, end: int) -> Samples:
    """Rows `start` to `end` of a batch."""
    if start == 0 and end >= len(samples.times_ms):
        return samples
    row = samples.width * 4
    return Samples(
        samples.times_ms[start:end], samples.values[start * row : end * row], samples.width
    )
