"""What time it is, as far as anybody can know: never earlier than what was signed last.

A device without a clock chip starts in 1970, and would take a metadata file that expired years
ago for fresh. So time is the later of the system's clock and a floor: when this agent was built,
and the latest time that came signed and verified; while the same kernel runs, the floor goes on
with its uptime. What NTP or TLS say never moves the floor, or a wrong year would stay for ever.

>>> floors = Floors(time_ms=1_000_000, boot_id="a", boot_ms=50)
>>> here = Uptime("a", 75)
>>> effective_ms(floors, 0, here, built_ms=0), effective_ms(floors, 0, Uptime("b", 5), built_ms=0)
(1000025, 1000000)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agent.floors import Floors
from shoal import BUILT
from shoal.errors import UntrustedError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CLOCK_AHEAD_MS = 60 * 86_400_000
"""An expired file that was signed so long before the system's time speaks against the clock."""


@dataclass(frozen=True, slots=True)
class Uptime:
    """Which boot of the kernel this is, and how long it has run, sleep included."""

    boot_id: str
    boot_ms: int


def read_uptime() -> Uptime:
    """Of this machine; where the kernel does not name its boot, none is the same as another."""
    try:
        boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot_id = ""
    return Uptime(boot_id, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000)


def system_ms() -> int:
    """The system's clock."""
    return max(time.time_ns() // 1_000_000, 0)


def built_ms() -> int:
    """When this agent was built."""
    return to_ms(BUILT)


def effective_ms(floors: Floors, system: int, uptime: Uptime, *, built_ms: int) -> int:
    """The time to judge expiry by. Pure."""
    floor = floors.time_ms
    if floor and floors.boot_id == uptime.boot_id != "":
        floor += max(uptime.boot_ms - floors.boot_ms, 0)
    return max(system, floor, built_ms)


def effective_now(floors: Floors) -> datetime:
    """The time to judge expiry by, now."""
    return to_time(effective_ms(floors, system_ms(), read_uptime(), built_ms=built_ms()))


def raise_time(floors: Floors, signed: datetime, latest: datetime, uptime: Uptime) -> Floors:
    """Move the floor up to a verified signed time, or raise.

    `latest` is when what offline keys signed expires: an online key in wrong hands could else
    push a device's time so far that nothing is ever fresh again.
    """
    if signed > latest:
        raise UntrustedError(
            f"signed time {signed.isoformat()}: beyond {latest.isoformat()}, when what the "
            "offline keys signed expires",
            code="time-jump",
        )
    if to_ms(signed) <= floors.time_ms:
        return floors
    return msgspec.structs.replace(
        floors, time_ms=to_ms(signed), boot_id=uptime.boot_id, boot_ms=uptime.boot_ms
    )


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def to_time(milliseconds: int) -> datetime:
    """A time in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
