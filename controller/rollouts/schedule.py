"""When, and to how many at once, a rollout may offer its release. Pure functions of now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from controller.rollouts.states import UNDER_WAY, ExecutionState
from controller.rollouts.values import ExecutionView, Options
from shoal.maintenance import parse_window, seconds_until_open

UNLIMITED = 2**62
BUSY = UNDER_WAY | {ExecutionState.OFFERED}


def opens_in(options: Options, now_ms: int) -> float:
    """Seconds until offers may go out: 0 after `start_at` and inside a maintenance window."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    start = max(now, options.start_at) if options.start_at is not None else now
    windows = [parse_window(text) for text in options.maintenance_windows]
    there = start.astimezone(ZoneInfo(options.time_zone))
    return (start - now).total_seconds() + seconds_until_open(windows, there)


def within_caps(
    options: Options, executions: Iterable[ExecutionView], waiting: Iterable[ExecutionView]
) -> list[ExecutionView]:
    """Those of the waiting that may be offered the release now, in their order."""
    busy = Counter(one.site for one in executions if one.state in BUSY)
    room = (options.max_under_way or UNLIMITED) - busy.total()
    per_site = options.max_under_way_per_site or UNLIMITED
    chosen: list[ExecutionView] = []
    for one in waiting:
        if len(chosen) >= room:
            break
        if busy[one.site] < per_site:
            busy[one.site] += 1
            chosen.append(one)
    return chosen


def describe(options: Options) -> str:
    """When, and to how many at once, in words; "" where nothing is set."""
    words = []
    if options.start_at is not None:
        words.append(f"offers after {options.start_at.isoformat(timespec='minutes')}")
    if options.maintenance_windows:
        windows = " or ".join(options.maintenance_windows)
        words.append(f"offers only {windows} ({options.time_zone})")
    if options.max_under_way is not None:
        words.append(f"at most {options.max_under_way} under way at once")
    if options.max_under_way_per_site is not None:
        words.append(f"at most {options.max_under_way_per_site} at a site")
    if options.control_share:
        words.append(f"{options.control_share:.0%} held back as control")
    return "; ".join(words)
