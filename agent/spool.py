"""The outbox that never stops the agent: on disk while the disk takes it, else in memory.

A full disk, a read-only state folder or a broken file costs durability, never inference: messages
then go to a small outbox in memory, are sent from there as ever (their numbers come from the same
count, so the controller knows no difference), and move to the disk once it takes them again. A
file that SQLite calls corrupt is set aside under another name, one of them kept, and a new one
begun. `trouble` says in words what is wrong; it stands in the device's state.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

from agent.config import OutboxLimits
from agent.outbox import Outbox, Outgoing
from agent.state_files import create_outbox, open_database, set_aside
from shoal.errors import InvalidInputError
from shoal.protocol.messages import Acked, Header
from shoal.protocol.topics import Channel

log = logging.getLogger("agent.outbox")

RETRY_SECONDS = 5.0
MEMORY_LIMITS = OutboxLimits(max_bytes=256 * 1024, merge_above_rows=60)
"""Of each class: at most 1.3 MB in all."""
MEMORY_ROWS_FROM = 2**40
"""Row numbers in memory never meet those of the file."""
CORRUPT_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Spool:
    """Used from the event loop's thread only."""

    def __init__(
        self,
        path: Path,
        boot_id: str,
        limits: OutboxLimits,
        on_change: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._boot_id = boot_id
        self._limits = limits
        self._on_change = on_change
        self._monotonic = monotonic
        self._numbers: Iterator[int] = count(1)
        self._disk: Outbox | None = None
        self._memory: Outbox | None = None
        self._retry_at = 0.0
        self._now_ms = 0
        self.trouble = ""
        """Why messages are kept in memory; empty while the file takes them."""
        self.set_aside = 0
        """Broken files put away since the start of the agent."""
        self._open()

    def put(self, channel: Channel, message: Header, now_ms: int) -> None:
        """Store a message, on disk if that works; `now_ms` is steady time."""
        self.put_all(channel, [message], now_ms)

    def put_all(self, channel: Channel, messages: Sequence[Header], now_ms: int) -> None:
        """Store all or none, in one transaction."""
        self._now_ms = now_ms
        self._recover()
        if not self.trouble and self._disk is not None:
            try:
                self._disk.put_all(channel, messages, now_ms)
            except sqlite3.Error as error:
                self._fail(error)
            else:
                return
        if not self.trouble and self._disk is not None:  # a fresh file after a broken one
            self._disk.put_all(channel, messages, now_ms)
        else:
            self._in_memory().put_all(channel, messages, now_ms)

    def claim(self, most: int, busy: set[int]) -> list[Outgoing]:
        """Return up to `most` rows to send that are not in `busy`, most urgent first.

        While the file cannot be written, what lies in it waits: its numbers could not be stored.
        """
        self._recover()
        if not self.trouble and self._disk is not None:
            try:
                return self._disk.claim(most, busy)
            except sqlite3.Error as error:
                self._fail(error)
        return self._memory.claim(most, busy) if self._memory is not None else []

    def acknowledge(self, acked: Acked) -> int:
        """Remove what the controller has committed; return how many rows.

        What the file cannot forget now is sent once more, and known to the controller.
        """
        gone = self._memory.acknowledge(acked) if self._memory is not None else 0
        if self._disk is not None and not self.trouble:
            try:
                gone += self._disk.acknowledge(acked)
            except sqlite3.Error as error:
                self._fail(error)
        return gone

    def stored(self, rows: Iterable[int]) -> set[int]:
        """Which of these rows are still here."""
        wanted = list(rows)
        found: set[int] = set()
        for outbox in self._outboxes():
            with contextlib.suppress(sqlite3.Error):
                found |= outbox.stored(wanted)
        return found

    @property
    def rows(self) -> int:
        """Messages that are not acked."""
        return sum(outbox.rows for outbox in self._outboxes())

    @property
    def size_bytes(self) -> int:
        """Their size."""
        return sum(outbox.size_bytes for outbox in self._outboxes())

    def dropped(self) -> dict[str, int]:
        """Rows lost to the caps since the outbox was made, by class."""
        total: Counter[str] = Counter()
        for outbox in self._outboxes():
            with contextlib.suppress(sqlite3.Error):
                total.update(outbox.dropped())
        return {name: lost for name, lost in total.items() if lost}

    def close(self) -> None:
        """Move what is in memory to the disk if it can be, and close the file."""
        self._retry_at = 0.0
        self._recover()
        for outbox in self._outboxes():
            outbox.close()

    def _outboxes(self) -> list[Outbox]:
        return [one for one in (self._disk, self._memory) if one is not None]

    def _in_memory(self) -> Outbox:
        if self._memory is None:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            create_outbox(connection)
            self._memory = Outbox(
                connection, self._boot_id, MEMORY_LIMITS, self._numbers, MEMORY_ROWS_FROM
            )
        return self._memory

    def _open(self) -> None:
        """Open the file, in place of a missing or broken one a new one."""
        for attempt in (1, 2):
            try:
                if not self._path.exists():
                    create_outbox(sqlite3.connect(self._path, isolation_level=None), close=True)
                self._disk = self._opened()
            except (sqlite3.Error, InvalidInputError, OSError) as error:
                if attempt == 1 and _is_corrupt(error):
                    self._put_aside(error)
                    continue
                self._set_trouble(error)
            return

    def _opened(self) -> Outbox:
        connection = open_database(self._path)
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                error = sqlite3.DatabaseError(verdict)
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
            return Outbox(connection, self._boot_id, self._limits, self._numbers)
        except sqlite3.Error:
            connection.close()
            raise

    def _fail(self, error: sqlite3.Error) -> None:
        if _is_corrupt(error):
            self._put_aside(error)
            self._open()
        else:
            self._set_trouble(error)

    def _put_aside(self, error: Exception) -> None:
        if self._disk is not None:
            with contextlib.suppress(sqlite3.Error):
                self._disk.close()
            self._disk = None
        log.error("outbox broken path=%s error=%r", self._path, str(error))
        try:
            set_aside(self._path)
        except OSError as problem:
            self._set_trouble(problem)
            return
        self.set_aside += 1
        self._on_change()

    def _set_trouble(self, error: Exception) -> None:
        self._retry_at = self._monotonic() + RETRY_SECONDS
        sentence = f"outbox {self._path.name}: {error}; messages are kept in memory"
        if sentence != self.trouble:
            log.error("outbox not writable error=%r", sentence)
            self.trouble = sentence
            self._on_change()

    def _recover(self) -> None:
        """Every few seconds: does the file take messages again? Then move them there."""
        if not self.trouble or self._monotonic() < self._retry_at:
            return
        self._retry_at = self._monotonic() + RETRY_SECONDS
        if self._disk is None:
            self._open()
        if self._disk is None:
            return
        try:
            self._disk.check_writable()
            if self._memory is not None:
                self._memory.move_to(self._disk, self._now_ms)
        except sqlite3.Error as error:
            self._fail(error)
            return
        log.info("outbox writable again rows=%d", self._disk.rows)
        self.trouble = ""
        self._on_change()


def _is_corrupt(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, sqlite3.Error) and code & 0xFF in CORRUPT_CODES
