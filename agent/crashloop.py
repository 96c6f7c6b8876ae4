"""When to stop trying, purely from counts: of a release's crashes, and of the agent's own starts.

Both counts are stored, so that a reboot forgets nothing. Wall-clock times that lie in the future
(the clock went back, or there is none) count as now: they are forgotten late rather than never.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct


@dataclass(frozen=True, slots=True)
class CrashLimits:
    """A release that loses `crashes` workers within `seconds` is given up."""

    crashes: int = 5
    seconds: float = 600.0


class CrashHistory(Struct, frozen=True):
    """Workers lost while one release was committed."""

    manifest: str = ""
    times_ms: tuple[int, ...] = ()


def add_crash(
    history: CrashHistory, manifest: str, now_ms: int, limits: CrashLimits
) -> CrashHistory:
    """Count a lost worker; those of another release, and old ones, are forgotten."""
    before = history.times_ms if history.manifest == manifest else ()
    oldest = now_ms - int(limits.seconds * 1000)
    times = (*(min(one, now_ms) for one in before if one >= oldest), now_ms)
    return CrashHistory(manifest, times[-limits.crashes :])


def is_loop(history: CrashHistory, limits: CrashLimits) -> bool:
    """Whether the release has crashed often enough to be given up."""
    return len(history.times_ms) >= limits.crashes


def backoff_seconds(losses: int) -> float:
    """How long to wait before the next worker after `losses` in a row without an answer.

    The first two are replaced at once: that is the retry of the window in flight.
    """
    return 0.0 if losses < 2 else min(0.5 * 2.0 ** (losses - 2), 60.0)


MAX_STARTS = 5
"""The agent starts without models when it has started this often without healthy minutes."""
HEALTHY_SECONDS = 300.0
"""How long a run lasts that clears the count."""
SAFE_SECONDS = 900.0
"""How long safe mode lasts before the models are tried again."""


class Starts(Struct, frozen=True):
    """Starts of the agent since it was healthy for some minutes, or left in order."""

    count: int = 0


def begin_start(before: Starts) -> Starts:
    """Count a start; stored before anything else is done."""
    return Starts(before.count + 1)


def is_safe_mode(starts: Starts) -> bool:
    """Whether this start is to be one without models."""
    return starts.count >= MAX_STARTS
