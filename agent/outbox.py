"""The outbox: messages wait here until the controller says that they are committed.

A broker's acknowledgement is not durable (a killed broker forgets what it queued), so a row
leaves only inside the ranges of an `acked` message. A row gets (boot_id, seq) when it is first
sent, stored before it goes out, and keeps them on every re-send: the controller knows it again.

Classes in order of sending: event, state, statistics, health, capture. Each has a cap in bytes and
age; beyond it the oldest rows go, counted per class for ever. Unsent windows and statistics are
merged two by two instead, so a long time offline costs resolution before it costs data.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from agent.config import OutboxLimits
from agent.merge import merge_messages
from shoal.protocol import MAX_MESSAGE_BYTES
from shoal.protocol.messages import UP_TYPES, Acked, Header, InvalidMessageError, encode
from shoal.protocol.topics import Channel

NUMBER_BYTES = 64
"""More than boot id and sequence can add to a message when they are filled in."""


class Rank(IntEnum):
    """Class of a message; lower goes first."""

    EVENT = 0
    STATE = 1
    STATISTICS = 2
    HEALTH = 3
    CAPTURE = 4


RANKS = {
    Channel.EVENTS: Rank.EVENT,
    Channel.STATE: Rank.STATE,
    Channel.WINDOW: Rank.STATISTICS,
    Channel.STATISTICS: Rank.STATISTICS,
    Channel.HEALTH: Rank.HEALTH,
    Channel.PREDICTIONS: Rank.CAPTURE,
}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A row ready to publish."""

    row: int
    channel: Channel
    model: str
    payload: bytes


class Outbox:
    """One SQLite file, used from the event loop's thread only."""

    def __init__(self, connection: sqlite3.Connection, boot_id: str, limits: OutboxLimits) -> None:
        self._db = connection
        self._boot_id = boot_id
        self._limits = limits
        self._seq = 0  # a boot id is used by one process only
        # never given twice, as SQLite would: whoever remembers a row must not meet another
        self._last_row: int = self._db.execute(
            "SELECT COALESCE(MAX(id), 0) FROM messages"
        ).fetchone()[0]
        self._count()

    def put(self, channel: Channel, message: Header, now_ms: int) -> None:
        """Store a message; it gets its boot and sequence when it is sent."""
        rank, model = RANKS[channel], getattr(message, "model", None) or ""
        body = _encode(message)
        with self._transaction():
            if rank is Rank.STATE:  # only the newest matters
                self._delete("class = ? AND seq IS NULL", (rank,))
            self._last_row += 1
            self._db.execute(
                "INSERT INTO messages (id, class, channel, model, body, created_ms)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (self._last_row, rank, channel.value, model, body, now_ms),
            )
            self._bytes[rank] += len(body)
            self._rows += 1
            if rank is Rank.STATISTICS:
                self._merge(channel, model)
            self._enforce(rank, now_ms)

    def claim(self, most: int, busy: set[int]) -> list[Outgoing]:
        """Return up to `most` rows to send that are not in `busy`, most urgent first."""
        marks = ",".join("?" * len(busy))
        rows = self._db.execute(
            f"SELECT id, channel, model, body, seq FROM messages WHERE id NOT IN ({marks})"  # noqa: S608
            " ORDER BY class, id LIMIT ?",
            (*busy, most),
        ).fetchall()
        found = []
        with self._transaction():
            for row, channel, model, body, seq in rows:
                payload = body if seq is not None else self._number(row, Channel(channel), body)
                found.append(Outgoing(row, Channel(channel), model, payload))
        return found

    def acknowledge(self, acked: Acked) -> int:
        """Remove what the controller has committed; return how many rows."""
        before = self._rows
        with self._transaction():
            for low, high in acked.ranges:
                self._delete("boot_id = ? AND seq BETWEEN ? AND ?", (acked.boot_id, low, high))
        return before - self._rows

    def stored(self, rows: Iterable[int]) -> set[int]:
        """Which of these rows are still here."""
        wanted = list(rows)
        marks = ",".join("?" * len(wanted))
        found = self._db.execute(f"SELECT id FROM messages WHERE id IN ({marks})", wanted)  # noqa: S608
        return {row for (row,) in found}

    @property
    def rows(self) -> int:
        """Messages that are not acked."""
        return self._rows

    @property
    def size_bytes(self) -> int:
        """Their size."""
        return sum(self._bytes.values())

    def dropped(self) -> dict[str, int]:
        """Rows lost to the caps since the outbox was made, by class."""
        return {
            Rank(rank).name.lower(): count
            for rank, count in self._db.execute("SELECT class, count FROM dropped")
        }

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _count(self) -> None:
        """Count what the file holds: at the start, and after a transaction that failed."""
        self._bytes = dict.fromkeys(Rank, 0)
        self._rows = 0
        for rank, rows, size in self._db.execute(
            "SELECT class, COUNT(*), SUM(LENGTH(body)) FROM messages GROUP BY class"
        ):
            self._bytes[Rank(rank)] = size
            self._rows += rows

    def _number(self, row: int, channel: Channel, body: bytes) -> bytes:
        self._seq += 1
        message = msgspec.json.decode(body, type=UP_TYPES[channel])
        message.boot_id, message.seq = self._boot_id, self._seq
        payload = encode(message)
        self._bytes[RANKS[channel]] += len(payload) - len(body)
        self._db.execute(
            "UPDATE messages SET boot_id = ?, seq = ?, body = ? WHERE id = ?",
            (self._boot_id, self._seq, payload, row),
        )
        return payload

    def _merge(self, channel: Channel, model: str) -> None:
        """Halve the number of unsent rows of one kind once there are too many."""
        rows = self._db.execute(
            "SELECT id, body FROM messages WHERE channel = ? AND model = ? AND seq IS NULL"
            " ORDER BY id",
            (channel.value, model),
        ).fetchall()
        if len(rows) <= self._limits.merge_above_rows:
            return
        kind = UP_TYPES[channel]
        pending: tuple[int, Header] | None = None
        for row, body in rows:
            message = msgspec.json.decode(body, type=kind)
            merged = merge_messages(pending[1], message) if pending else None
            if pending is None or merged is None:
                pending = (row, message)
                continue
            try:
                data = _encode(merged)
            except InvalidMessageError:  # together they are too large: they stay two
                pending = (row, message)
                continue
            self._delete("id IN (?, ?)", (pending[0], row))
            self._db.execute(
                "INSERT INTO messages (id, class, channel, model, body, created_ms)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (row, Rank.STATISTICS, channel.value, model, data, merged.ts_ms),
            )
            self._bytes[Rank.STATISTICS] += len(data)
            self._rows += 1
            pending = None

    def _enforce(self, rank: Rank, now_ms: int) -> None:
        oldest_ms = now_ms - int(self._limits.max_age_seconds * 1000)
        lost = self._delete("class = ? AND created_ms < ?", (rank, oldest_ms))
        while self._bytes[rank] > self._limits.max_bytes:
            lost += self._delete(
                "id IN (SELECT id FROM messages WHERE class = ? ORDER BY id LIMIT 16)", (rank,)
            )
        if lost:
            self._db.execute(
                "INSERT INTO dropped (class, count) VALUES (?, ?)"
                " ON CONFLICT (class) DO UPDATE SET count = count + excluded.count",
                (rank, lost),
            )

    def _delete(self, where: str, values: tuple[object, ...]) -> int:
        gone = self._db.execute(
            f"DELETE FROM messages WHERE {where} RETURNING class, LENGTH(body)",  # noqa: S608
            values,
        ).fetchall()
        for rank, size in gone:
            self._bytes[Rank(rank)] -= size
        self._rows -= len(gone)
        return len(gone)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # on a full disk SQLite rolls back by itself
                self._db.execute("ROLLBACK")
            self._count()
            raise


def _encode(message: Header) -> bytes:
    """Encode with room for the number, or what was stored could never be sent."""
    body = encode(message)
    if len(body) > MAX_MESSAGE_BYTES - NUMBER_BYTES:
        raise InvalidMessageError(
            f"{type(message).__name__}: {len(body)} bytes, {NUMBER_BYTES} of "
            f"{MAX_MESSAGE_BYTES} are kept for its number",
            code="message-too-large",
        )
    return body
