"""Following the desired state: verified in an updater, stored, and only then obeyed.

Only the newest envelope counts; an older one that still waits is overwritten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.clock import Clock
from agent.live_options import LiveOptions
from agent.manager import ModelManager
from agent.reporter import Reporter
from agent.safemode import SafeMode
from agent.store import STORE_RETRY_SECONDS, StateStore, StateStoreError
from agent.updater.client import UpdaterError, ask_updater
from agent.updater.wire import Verified, VerifyRequest
from shoal.protocol.desired import Assignment, DesiredState, decode_desired

log = logging.getLogger("agent.desired")


class DesiredFollower:
    """Takes envelopes from the link, and gives each manager its assignment."""

    def __init__(
        self,
        state_dir: Path,
        device: str,
        store: StateStore,
        clock: Clock,
        reporter: Reporter,
        safe: SafeMode,
        options: LiveOptions,
        managers: Mapping[str, ModelManager],
        on_change: Callable[[], None],
    ) -> None:
        self._state_dir = state_dir
        self._device = device
        self._store = store
        self._clock = clock
        self._reporter = reporter
        self._safe = safe
        self._options = options
        self._managers = managers
        self._on_change = on_change
        self._envelope: bytes | None = None
        self._news = asyncio.Event()

    def take(self, envelope: bytes) -> None:
        """A message came on `desired`; an empty one is a retained one that was cleared."""
        if envelope:
            self._envelope = envelope
            self._news.set()

    def resume(self) -> None:
        """Obey what was stored before the agent ended."""
        payload = self._store.desired()[1]
        if payload:
            self._apply(decode_desired(payload))

    async def run(self) -> None:
        """Consider what comes, one after another, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            envelope, self._envelope = self._envelope, None
            if envelope is not None:
                await self._consider(envelope)

    async def _consider(self, envelope: bytes) -> None:
        """Verify a desired state in an updater, store it, then act on it."""
        floor, stored = self._store.desired()
        payload = await self._verify(envelope, floor)
        if payload is None:
            return
        desired = decode_desired(payload)
        if desired.sequence == floor and stored and payload != stored:
            self._reporter.event(
                "desired",
                "desired-conflict",
                f"desired state: sequence {floor} came twice with different content",
                severity="error",
            )
            return
        try:
            self._store.accept_desired(desired.sequence, payload)
        except StateStoreError as error:  # not obeyed before it is stored; tried again
            self._reporter.event("desired", error.code, error.sentence, severity="error")
            self._envelope = self._envelope or envelope
            asyncio.get_running_loop().call_later(STORE_RETRY_SECONDS, self._news.set)
            return
        self._apply(desired)
        if desired.sequence > floor:
            self._safe.leave()
        self._on_change()

    async def _verify(self, envelope: bytes, floor: int) -> bytes | None:
        """The payload that the director has signed; None where it is refused."""
        request = VerifyRequest(
            str(self._state_dir), self._device, floor, envelope, self._clock.now_ms()
        )
        try:
            reply = await ask_updater(request)
        except UpdaterError as error:
            log.warning("desired refused code=%s error=%r", error.code, error.sentence)
            self._reporter.event("desired", error.code, error.sentence, severity="warning")
            return None
        assert isinstance(reply, Verified)
        return reply.payload

    def _apply(self, desired: DesiredState) -> None:
        self._options.put(desired.options)
        for assignment in desired.models:
            manager = self._managers.get(assignment.model)
            if manager is not None:
                manager.assign(assignment)
            else:
                self._reject(assignment)

    def _reject(self, assignment: Assignment) -> None:
        self._reporter.event(
            "execution",
            "no-binding",
            f"{assignment.model}: this device has no source bound to that model",
            severity="error",
            model=assignment.model,
            version=assignment.version,
            rollout=assignment.rollout or None,
            attempt=assignment.attempt,
            data={"state": "rejected", "intent": assignment.intent},
        )
