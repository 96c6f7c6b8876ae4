"""Wall time beside time that only goes forward, and whether the wall clock can be believed.

A device without a clock chip starts in 1970, a first answer of NTP moves it by decades, and an
operator may set it back. So three times are told apart:

- `now_ms` is wall time for messages: the system's, but until that is synchronised never below the
  latest that was known before, which is stored (a device without a clock chip goes on from there);
- `steady_ms` is for ages and lengths: it rises with the monotonic clock alone, goes on after a
  restart where it stopped, and so knows nothing of jumps;
- `to_wall_ms` says when, by today's wall clock, a steady moment was.

>>> clock = Clock(Known(steady_ms=0, wall_ms=5_000), wall=lambda: 1_000, monotonic=lambda: 0.0)
>>> clock.now_ms(), clock.steady_ms()
(5000, 0)
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from msgspec import Struct

JUMP_MS = 2_000
"""The wall clock and the monotonic one differing by more between two looks is a jump."""
SLACK_MS = 20
"""Below this the two clocks are the same, so that windows side by side stay side by side."""
TIMESYNCD_FILE = Path("/run/systemd/timesync/synchronized")
PROBE_SECONDS = 5.0


class Known(Struct, frozen=True):
    """What is stored of the clock: how far the steady time had come, and the latest wall time."""

    steady_ms: int
    wall_ms: int


class Clock:
    """One per agent. `wall` gives milliseconds since 1970, `monotonic` seconds."""

    def __init__(
        self,
        known: Known | None = None,
        wall: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._started = monotonic()
        now = max(wall(), 0)
        self._floor_ms = known.wall_ms if known is not None else now
        self._steady_ms = known.steady_ms if known is not None else now
        self._seen = (now, self._started)
        self._offset_ms = 0
        self.synced = False
        """Whether the wall clock is disciplined, as of the last look; then it is believed."""

    def now_ms(self) -> int:
        """Wall time; unless it is synchronised, never below what was known when this began."""
        wall = max(self._wall(), 0)
        return wall if self.synced else max(wall, self._floor_ms + self.uptime_ms())

    @property
    def behind(self) -> bool:
        """Whether the wall clock shows less than a time that has been: dates mean nothing then."""
        return not self.synced and self._wall() + SLACK_MS < self._floor_ms

    def uptime_ms(self) -> int:
        """Since this began."""
        return int((self._monotonic() - self._started) * 1000)

    def steady_ms(self) -> int:
        """Time that no setting of the clock moves."""
        return self._steady_ms + self.uptime_ms()

    def to_wall_ms(self, steady_ms: int) -> int:
        """When a steady moment was, by the wall clock as it is now."""
        offset = self.now_ms() - self.steady_ms()
        if abs(offset - self._offset_ms) > SLACK_MS:
            self._offset_ms = offset
        return max(steady_ms + self._offset_ms, 0)

    def take_jump_ms(self) -> int:
        """How far the wall clock was moved since the last call; 0 for less than `JUMP_MS`."""
        wall, monotonic = max(self._wall(), 0), self._monotonic()
        before_wall, before = self._seen
        self._seen = (wall, monotonic)
        jump = wall - before_wall - int((monotonic - before) * 1000)
        return jump if abs(jump) > JUMP_MS else 0

    def known(self) -> Known:
        """What to store."""
        return Known(self.steady_ms(), self.now_ms())


def find_probe() -> Callable[[], bool]:
    """The first way of asking whether the clock is synchronised that works here.

    The kernel knows (adjtimex); a sandbox that protects the clock forbids the question, then
    timesyncd, timedated or chrony are asked. Where nobody knows, the answer is no.
    """
    if ask_kernel() is not None:
        return lambda: bool(ask_kernel())
    if TIMESYNCD_FILE.parent.is_dir():
        return TIMESYNCD_FILE.exists
    for command, wanted in (
        (["timedatectl", "show", "-p", "NTPSynchronized", "--value"], "yes"),
        (["chronyc", "-n", "tracking"], "Leap status     : Normal"),
    ):
        if shutil.which(command[0]) is not None and _says(command, "") is not None:
            return partial(_asks, command, wanted)
    return lambda: False


def ask_kernel() -> bool | None:
    """Whether the kernel disciplines the wall clock (not TIME_ERROR); None where it may not say."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, zero: only read
    state: int = ctypes.CDLL(None).adjtimex(buffer)
    return None if state < 0 else state < 5


def _asks(command: list[str], wanted: str) -> bool:
    return bool(_says(command, wanted))


def _says(command: list[str], wanted: str) -> bool | None:
    """Whether a command's output holds `wanted`; None where it fails."""
    try:
        result = subprocess.run(  # noqa: S603 - fixed commands
            command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return wanted in result.stdout if result.returncode == 0 else None
