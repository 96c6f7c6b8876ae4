"""The desk where commands arrive: verified one by one, answered, never trusted before.

An envelope is checked in the updater's short-lived process, so that cryptography stays out of
this one. At most `MAX_WAITING` wait; a flood costs the sender its answers, not the device its
memory. A handler returns text, or raises a `ShoalError` that becomes a refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from agent.refusals import Refusals
from agent.replays import Answered, remember, was_answered
from agent.reporter import Reporter
from agent.store import StateStore, StateStoreError
from agent.updates import Updates
from shoal.errors import ShoalError
from shoal.protocol.commands import Order, decode_command
from shoal.protocol.envelope import MAX_ENVELOPE_BYTES

log = logging.getLogger("agent.commands")

MAX_WAITING = 8
NOTE = "commands"
"""Which commands were answered, in the store."""
ANSWER_SECONDS = 120.0
MAX_ANSWER = 512 * 1024
"""Characters: 32 parts."""

Handler = Callable[[Order], Awaitable[str]]


class CommandDesk:
    """Takes envelopes from the link and puts replies into the outbox."""

    def __init__(
        self,
        updates: Updates,
        store: StateStore,
        reporter: Reporter,
        handlers: Mapping[type[Order], Handler],
    ) -> None:
        self._updates = updates
        self._reporter = reporter
        self._refusals = Refusals("command", reporter)
        self._handlers = dict(handlers)
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._store = store
        self._answered = store.note(NOTE, Answered) or Answered()
        self.turned_away = 0
        """Envelopes for which there was no room."""

    def take(self, envelope: bytes) -> None:
        """A message came on `commands`; anyone at the broker may have sent it."""
        if len(self._waiting) >= MAX_WAITING or len(envelope) > MAX_ENVELOPE_BYTES:
            self.turned_away += 1
            log.warning("command turned away waiting=%d", len(self._waiting))
            return
        self._waiting.append(envelope)
        self._news.set()

    async def run(self) -> None:
        """Answer commands, one after another, for ever."""
        while True:
            while self._waiting:
                await self._consider(self._waiting.popleft())
            self._news.clear()
            await self._news.wait()

    async def _consider(self, envelope: bytes) -> None:
        try:
            command = decode_command(await self._updates.verify_command(envelope))
        except ShoalError as error:
            self._refusals.tell(error.code, error.sentence)
            return
        issued_ms = int(command.issued.timestamp() * 1000)
        if was_answered(self._answered, command.command, issued_ms):
            sentence = f"command {command.command}: was answered before"
            self._refusals.tell("command-replayed", sentence, "info")
            return
        log.info("command=%s kind=%s", command.command, type(command.order).__name__)
        await self._answer(command.command, command.order)
        self._answered = remember(self._answered, command.command, issued_ms)
        with contextlib.suppress(StateStoreError):  # a full disk: known until the agent ends
            self._store.save_note(NOTE, self._answered)

    async def _answer(self, command: str, order: Order) -> None:
        try:
            handler = self._handlers.get(type(order), _refuse)
            async with asyncio.timeout(ANSWER_SECONDS):
                text = await handler(order)
        except ShoalError as error:
            self._reporter.reply(command, "", code=error.code, sentence=error.sentence)
        except TimeoutError:
            sentence = f"no answer within {ANSWER_SECONDS:g} s"
            self._reporter.reply(command, "", code="timed-out", sentence=sentence)
        except OSError as error:
            self._reporter.reply(command, "", code="disk-error", sentence=str(error))
        else:
            if len(text) > MAX_ANSWER:
                sentence = f"{len(text)} characters, at most {MAX_ANSWER} are sent"
                self._reporter.reply(command, "", code="answer-too-large", sentence=sentence)
            else:
                self._reporter.reply(command, text)


async def _refuse(order: Order) -> str:
    raise ShoalError(f"{type(order).__name__}: not answered here", code="unknown-command")
