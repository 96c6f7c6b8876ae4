"""Telling the controller what was refused, without letting a flood become one.

Anybody at the broker may send envelopes. The first of a kind is told at once, the rest of the next
`quiet_seconds` as a number with the one after.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agent.reporter import Reporter

log = logging.getLogger("agent.refusals")

QUIET_SECONDS = 60.0


class Refusals:
    """Counts refusals of one kind of message by code, and tells some of them."""

    def __init__(
        self,
        kind: str,
        reporter: Reporter,
        quiet_seconds: float = QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._reporter = reporter
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._told: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def tell(self, code: str, sentence: str, severity: str = "warning") -> None:
        """Something was refused."""
        log.warning("refused kind=%s code=%s error=%r", self._kind, code, sentence)
        now = self._clock()
        last = self._told.get(code)
        if last is not None and now - last < self._quiet_seconds:
            self._untold[code] = self._untold.get(code, 0) + 1
            return
        self._told[code] = now
        untold = self._untold.pop(code, 0)
        data = {"untold": untold} if untold else {}
        self._reporter.event(self._kind, code, sentence, severity=severity, data=data)
