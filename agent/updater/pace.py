"""How long a transfer may take, and how fast it may be.

A gap timeout alone is no defence: a byte every few seconds never trips one. So every transfer has a
deadline for all of it, from what it is expected to bring at the slowest speed that is of use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.updater.wire import Sources
from shoal.errors import ShoalError

GAP_SECONDS = 20.0
"""Longest silence."""
_SLICES_PER_SECOND = 10


class SlowTransferError(ShoalError, TimeoutError):
    """Too slow for its deadline; what came is kept and resumed."""

    code = "download-slow"


@dataclass(frozen=True, slots=True)
class Limits:
    """Speed limits of every transfer; `grace_seconds` is what even an empty file may take."""

    min_bytes_per_second: float = 4096.0
    max_bytes_per_second: float = 0.0
    """0: as fast as it comes."""
    grace_seconds: float = 30.0
    gap_seconds: float = GAP_SECONDS

    @property
    def slowest(self) -> float:
        """Slower than this is given up; our own limit must not be what makes it slow."""
        if not self.max_bytes_per_second:
            return self.min_bytes_per_second
        return min(self.min_bytes_per_second, self.max_bytes_per_second / 2)


def limits_of(sources: Sources) -> Limits:
    """The limits that a request asks for."""
    return Limits(
        min_bytes_per_second=sources.min_bytes_per_second,
        max_bytes_per_second=sources.max_bytes_per_second,
        grace_seconds=sources.grace_seconds,
        gap_seconds=min(GAP_SECONDS, sources.grace_seconds),
    )


class Pace:
    """One transfer of at most `expected` bytes."""

    def __init__(
        self,
        name: str,
        expected: int,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name = name
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._begun = clock()
        self._seconds = expected / limits.slowest + limits.grace_seconds
        self._count = 0

    def wait_seconds(self) -> float:
        """How long to wait for the next bytes; raises `SlowTransferError` at the deadline."""
        left = self._begun + self._seconds - self._clock()
        if left <= 0:
            raise SlowTransferError(
                f"{self._name}: slower than {self._limits.slowest:g} B/s, given up after "
                f"{self._seconds:.0f} s"
            )
        return min(left, self._limits.gap_seconds)

    def silent(self) -> SlowTransferError:
        """What to raise when the wait was for nothing."""
        return SlowTransferError(f"{self._name}: nothing came for a while")

    def most(self, room: int) -> int:
        """How many bytes to take at once."""
        fastest = self._limits.max_bytes_per_second
        return room if not fastest else max(min(room, int(fastest / _SLICES_PER_SECOND)), 1)

    def count(self, size: int) -> None:
        """`size` bytes came; sleep if that was too fast."""
        self._count += size
        if fastest := self._limits.max_bytes_per_second:
            ahead = self._count / fastest - (self._clock() - self._begun)
            if ahead > 0:
                self._sleep(ahead)
