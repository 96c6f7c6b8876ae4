"""What is known of a candidate in probation, and of the release before it on this device."""

from __future__ import annotations

import time
from collections import deque

from agent.judge import Evidence, Judgement, judge, summarise_before
from agent.ports import WindowReport
from shoal.protocol.manifest import Probation as Limits

BEFORE_WINDOWS = 20
"""Last windows of the active release, with which a candidate is compared."""


class Probation:
    """Collects evidence; the rules are those of `judge`."""

    def __init__(self) -> None:
        self._evidence = Evidence()
        self._since = 0.0
        self._before: deque[WindowReport] = deque(maxlen=BEFORE_WINDOWS)
        self._memory_before = 0

    def begin(self) -> None:
        """The candidate answers from now on."""
        self._evidence = Evidence()
        self._since = time.monotonic()

    def add_window(self, report: WindowReport, memory_bytes: int) -> None:
        """Add a closed window of the candidate."""
        self._evidence = self._evidence.with_report(report).with_memory(memory_bytes)

    def add_loss(self, code: str) -> None:
        """Add a lost worker of the candidate."""
        self._evidence = self._evidence.with_loss(code)

    def add_before(self, report: WindowReport, memory_bytes: int) -> None:
        """Add a closed window of the active release; another release's past is no measure."""
        past = self._before[-1].release if self._before else report.release
        if past.manifest_sha256 != report.release.manifest_sha256:
            self._before.clear()
        self._before.append(report)
        self._memory_before = memory_bytes

    def judge(self, limits: Limits, seconds: float) -> Judgement:
        """What the rules say now, of a probation of `seconds`."""
        before = summarise_before(self._before, self._memory_before)
        return judge(self._evidence, limits, time.monotonic() - self._since, seconds, before)
