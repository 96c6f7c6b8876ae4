"""Waiting for a maintenance window to open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from shoal.maintenance import Window, seconds_until_open

LOOK_SECONDS = 60.0
"""So often at least: the clock may be set meanwhile."""


class Tell(Protocol):
    """Reports how far an execution has come."""

    def __call__(self, state: str, code: str, sentence: str, **numbers: float) -> None: ...


async def wait_for_maintenance(
    windows: Sequence[Window], release: str, news: asyncio.Event, tell: Tell
) -> bool:
    """Wait until a candidate may be activated, and tell so; False when news came."""
    told = False
    while wait := seconds_until_open(windows, datetime.now(UTC)):
        if not told:
            words = f"{release} waits {wait / 60:.0f} min for maintenance"
            tell("staged", "waits-for-maintenance", words)
            told = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(wait, LOOK_SECONDS)):
                await news.wait()
            return False
    return True
