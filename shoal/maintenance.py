"""Maintenance windows: when something may be changed, in the time zone of `now`. Pure.

>>> from datetime import UTC, datetime
>>> night = [parse_window("sat,sun 22:00-04:00")]
>>> seconds_until_open(night, datetime(2026, 11, 28, 23, 0, tzinfo=UTC))  # a Saturday
0.0
>>> seconds_until_open(night, datetime(2026, 11, 28, 21, 0, tzinfo=UTC))
3600.0
>>> seconds_until_open(night, datetime(2026, 11, 30, 3, 59, tzinfo=UTC))  # Sunday's, past midnight
0.0
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from shoal.errors import InvalidInputError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(?:([a-z,]+) )?(\d\d):(\d\d)-(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` for `length`, on days of the week (0 is Monday)."""

    days: frozenset[int]
    start: time
    length: timedelta


def parse_window(text: str) -> Window:
    """`02:00-04:00` on every day, or `sat,sun 22:00-04:00`; an end before the start is next day."""
    found = _FORM.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidInputError(f"{text[:60]!r}: expected e.g. '02:00-04:00' or 'sat 22:00-04:00'")
    names = found[1].split(",") if found[1] else list(DAYS)
    if unknown := [name for name in names if name not in DAYS]:
        raise InvalidInputError(f"{text[:60]!r}: {unknown[0]!r} is none of {', '.join(DAYS)}")
    try:
        start, end = time(int(found[2]), int(found[3])), time(int(found[4]), int(found[5]))
    except ValueError as error:
        raise InvalidInputError(f"{text[:60]!r}: {error}") from error
    minutes = (end.hour - start.hour) * 60 + end.minute - start.minute
    length = timedelta(minutes=minutes if minutes > 0 else minutes + 24 * 60)
    return Window(frozenset(DAYS.index(name) for name in names), start, length)


def seconds_until_open(windows: Iterable[Window], now: datetime) -> float:
    """0 within a window, or where there is none; else how long until the next begins."""
    waits = [_wait(window, now) for window in windows]
    return min(waits, default=0.0)


def _wait(window: Window, now: datetime) -> float:
    for days in range(-1, 8):  # yesterday's may reach into today
        start = datetime.combine(now.date() + timedelta(days=days), window.start, now.tzinfo)
        end = (start + window.length).astimezone(UTC)  # by the clock on the wall, then compared
        if start.weekday() in window.days and now.astimezone(UTC) < end:
            return max((start.astimezone(UTC) - now.astimezone(UTC)).total_seconds(), 0.0)
    return 0.0
