"""Following the desired state: verified in an updater, stored, and only then obeyed.

Only the newest envelope counts; an older one that still waits is overwritten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from agent.live_options import LiveOptions
from agent.manager import ModelManager
from agent.refusals import Refusals
from agent.reporter import Reporter
from agent.safemode import SafeMode
from agent.store import STORE_RETRY_SECONDS, StateStore, StateStoreError
from agent.updater.client import UpdaterError
from agent.updates import Updates
from shoal.protocol.desired import Assignment, DesiredState, decode_desired

RETRY_SECONDS = STORE_RETRY_SECONDS
_SEVERITY = {"desired-conflict": "error", "floors-lost": "error", "no-root": "error"}


class DesiredFollower:
    """Takes envelopes from the link, and gives each manager its assignment."""

    def __init__(
        self,
        updates: Updates,
        store: StateStore,
        reporter: Reporter,
        safe: SafeMode,
        options: LiveOptions,
        managers: Mapping[str, ModelManager],
        on_change: Callable[[], None],
    ) -> None:
        self._updates = updates
        self._store = store
        self._reporter = reporter
        self._refusals = Refusals("desired", reporter)
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
            sentence = f"desired state: sequence {floor} came twice with different content"
            self._refusals.tell("desired-conflict", sentence, "error")
            return
        try:
            self._store.accept_desired(desired.sequence, payload)
        except StateStoreError as error:  # not obeyed before it is stored; tried again
            self._refusals.tell(error.code, error.sentence, "error")
            self._try_again(envelope)
            return
        self._apply(desired)
        if desired.sequence > floor:
            self._safe.leave()
        self._on_change()

    async def _verify(self, envelope: bytes, floor: int) -> bytes | None:
        """The payload that the director has signed; None where it is refused."""
        try:
            return await self._updates.verify_desired(envelope, floor)
        except UpdaterError as error:
            self._refusals.tell(error.code, error.sentence, _SEVERITY.get(error.code, "warning"))
            if error.retryable:
                self._try_again(envelope)
            return None

    def _try_again(self, envelope: bytes) -> None:
        """Later, unless another comes until then."""
        self._envelope = self._envelope or envelope
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._news.set)

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
