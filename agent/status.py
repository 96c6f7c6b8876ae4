"""How the device is, and the `state` message that says so: ok, updating, degraded or failing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from agent.manager import ModelManager
from agent.reporter import Reporter
from agent.slots import Candidate
from agent.spool import Spool

GATHER_SECONDS = 0.05
"""Several changes at once are one message."""


def status_of(
    troubles: Mapping[str, str],
    outbox_trouble: str,
    degraded: Mapping[str, str],
    candidates: Mapping[str, Candidate],
) -> tuple[str, str]:
    """The worst that is to be said, with its reason; `candidates` are those under way. Pure.

    >>> status_of({"echo": "no worker"}, "disk full", {}, {}), status_of({"echo": ""}, "", {}, {})
    (('failing', 'no worker'), ('ok', ''))
    """
    for reason in troubles.values():
        if reason:
            return "failing", reason
    for reason in (outbox_trouble, *degraded.values()):
        if reason:
            return "degraded", reason
    for name, one in candidates.items():
        return "updating", f"{name} {one.assignment.version} is {one.stage.value}"
    return "ok", ""


class StateReport:
    """Puts a `state` message whenever something has changed."""

    def __init__(
        self,
        reporter: Reporter,
        outbox: Spool,
        outbox_name: str,
        managers: Mapping[str, ModelManager],
        desired_sequence: Callable[[], int],
        due: asyncio.Event,
    ) -> None:
        self._reporter = reporter
        self._outbox = outbox
        self._outbox_name = outbox_name
        self._managers = managers
        self._desired_sequence = desired_sequence
        self._due = due
        self._broken_told = 0

    async def run(self) -> None:
        """Report for ever."""
        while True:
            await self._due.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._due.clear()
            self._tell_of_broken_outbox()
            status, reason = self.status()
            self._reporter.put_state(
                self._reporter.state(
                    [manager.state() for manager in self._managers.values()],
                    online=True,
                    desired_sequence=self._desired_sequence(),
                    status=status,
                    reason=reason,
                )
            )

    def status(self) -> tuple[str, str]:
        """The device's status now, with its reason."""
        managers = self._managers
        return status_of(
            {name: one.trouble for name, one in managers.items()},
            self._outbox.trouble,
            {name: one.degraded for name, one in managers.items()},
            {
                name: one.slots.candidate
                for name, one in managers.items()
                if one.updating and one.slots.candidate is not None
            },
        )

    def _tell_of_broken_outbox(self) -> None:
        if self._outbox.set_aside > self._broken_told:
            self._broken_told = self._outbox.set_aside
            self._reporter.event(
                "agent",
                "outbox-broken",
                f"{self._outbox_name} was broken and is set aside; "
                "messages that lay in it are lost",
                severity="error",
            )
