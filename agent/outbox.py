"""The outbox: messages wait here until the controller says that they are committed.

A broker's acknowledgement is not durable (a killed broker forgets what it queued), so a row
leaves only inside the ranges of an `acked` message. A row gets (boot_id, seq) when it is first
sent, stored before it goes out, and keeps them on every re-send: the controller knows it again.

Classes in order of sending: event, state, statistics, health, capture. Each has a cap in bytes and
age; beyond it the oldest rows go, counted per class for ever. Unsent windows and statistics are
merged two by two instead, so a long time offline costs resolution before it costs data.

Ages are measured in the steady time that callers pass (`agent.clock`): a clock that jumps drops
nothing. What happens when the file cannot be written is the business of `agent.spool`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from itertools import count

from agent.config import OutboxLimits
from agent.merge import merge_messages
from shoal.protocol import MAX_MESSAGE_BYTES
from shoal.protocol.messages import Acked, Header, InvalidMessageError, decode, encode
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
    Channel.REPLIES: Rank.EVENT,
    Channel.STATE: Rank.STATE,
    Channel.WINDOW: Rank.STATISTICS,
    Channel.STATISTICS: Rank.STATISTICS,
    Channel.HEALTH: Rank.HEALTH,
    Channel.PREDICTIONS: Rank.CAPTURE,
    Channel.CAPTURES: Rank.CAPTURE,
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

    def __init__(
        self,
        connection: sqlite3.Connection,
        boot_id: str,
        limits: OutboxLimits,
        numbers: Iterator[int] | None = None,
        first_row: int = 0,
    ) -> None:
        self._db = connection
        self._boot_id = boot_id
        self._limits = limits
        self._numbers = numbers or count(1)  # a boot id is used by one process only
        # never given twice, as SQLite would: whoever remembers a row must not meet another
        self._last_row: int = self._db.execute(
            "SELECT COALESCE(MAX(id), ?) FROM messages", (first_row,)
        ).fetchone()[0]
        self._count()

    def put(self, channel: Channel, message: Header, now_ms: int) -> None:
        """Store a message; it gets its boot and sequence when it is sent.

        `now_ms` is steady time.
        """
        self.put_all(channel, [message], now_ms)

    def put_all(self, channel: Channel, messages: Sequence[Header], now_ms: int) -> None:
        """Store all or none, in one transaction."""
        rank = RANKS[channel]
        bodies = [(getattr(one, "model", None) or "", _encode(one)) for one in messages]
        with self._transaction():
            if rank is Rank.STATE:  # only the newest matters
                self._delete("class = ? AND seq IS NULL", (rank,))
            for model, body in bodies:
                self._insert(rank, channel, model, body, now_ms)
            self._enforce(rank, now_ms)

    def _insert(self, rank: Rank, channel: Channel, model: str, body: bytes, now_ms: int) -> None:
        self._last_row += 1
        self._db.execute(
            "INSERT INTO messages (id, class, channel, model, body, created_ms)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (self._last_row, rank, channel.value, model, body, now_ms),
        )
        self._bytes[rank] += len(body)
        self._rows += 1
        if rank is Rank.STATISTICS:
            self._unsent[channel, model] = self._unsent.get((channel, model), 0) + 1
            if self._unsent[channel, model] > self._limits.merge_above_rows:
                self._merge(channel, model)

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

    def move_to(self, other: Outbox, now_ms: int) -> int:
        """Give every row, with its number where it has one, to another outbox; return how many."""
        columns = "class, channel, model, body, created_ms, boot_id, seq"
        rows = self._db.execute(f"SELECT {columns} FROM messages ORDER BY id").fetchall()  # noqa: S608
        with other._transaction():
            for row in rows:
                other._last_row += 1
                other._db.execute(
                    f"INSERT INTO messages (id, {columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    (other._last_row, *row),
                )
            for rank, lost in self._db.execute("SELECT class, count FROM dropped").fetchall():
                other._drop(Rank(rank), lost)
            other._count()
            for rank in Rank:
                other._enforce(rank, now_ms)
        self._db.execute("DELETE FROM messages")
        self._db.execute("DELETE FROM dropped")
        self._count()
        return len(rows)

    def check_writable(self) -> None:
        """Raise `sqlite3.Error` where nothing could be stored."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO dropped (class, count) VALUES (?, 0)"
                " ON CONFLICT (class) DO UPDATE SET count = count",
                (Rank.EVENT,),
            )

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
        self._unsent = {
            (Channel(channel), model): rows
            for channel, model, rows in self._db.execute(
                "SELECT channel, model, COUNT(*) FROM messages WHERE class = ? AND seq IS NULL"
                " GROUP BY channel, model",
                (Rank.STATISTICS,),
            )
        }
        """Rows that could be merged: at least so many as there are, never fewer."""

    def _number(self, row: int, channel: Channel, body: bytes) -> bytes:
        number = next(self._numbers)
        message = decode(channel, body)
        message.boot_id, message.seq = self._boot_id, number
        payload = encode(message)
        self._bytes[RANKS[channel]] += len(payload) - len(body)
        self._db.execute(
            "UPDATE messages SET boot_id = ?, seq = ?, body = ? WHERE id = ?",
            (self._boot_id, number, payload, row),
        )
        return payload

    def _merge(self, channel: Channel, model: str) -> None:
        """Halve the number of unsent rows of one kind once there are too many."""
        rows = self._db.execute(
            "SELECT id, body, created_ms FROM messages"
            " WHERE channel = ? AND model = ? AND seq IS NULL ORDER BY id",
            (channel.value, model),
        ).fetchall()
        self._unsent[channel, model] = len(rows)
        if len(rows) <= self._limits.merge_above_rows:
            return
        pending: tuple[int, Header] | None = None
        for row, body, created_ms in rows:
            message = decode(channel, body)
            data = _merged(pending[1], message) if pending else None
            if pending is None or data is None:
                pending = (row, message)
                continue
            self._delete("id IN (?, ?)", (pending[0], row))
            self._db.execute(
                "INSERT INTO messages (id, class, channel, model, body, created_ms)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (row, Rank.STATISTICS, channel.value, model, data, created_ms),
            )
            self._bytes[Rank.STATISTICS] += len(data)
            self._rows += 1
            self._unsent[channel, model] -= 1
            pending = None

    def _enforce(self, rank: Rank, now_ms: int) -> None:
        name = rank.name.lower()
        oldest_ms = now_ms - int(self._limits.age_of(name) * 1000)
        lost = 0
        if self._oldest_ms(rank) < oldest_ms:
            lost = self._delete("class = ? AND created_ms < ?", (rank, oldest_ms))
        while self._bytes[rank] > self._limits.bytes_of(name):
            lost += self._delete(
                "id IN (SELECT id FROM messages WHERE class = ? ORDER BY id LIMIT 16)", (rank,)
            )
        if lost:
            self._drop(rank, lost)

    def _oldest_ms(self, rank: Rank) -> int:
        """When its first row was stored: those behind are younger, so nobody reads them all."""
        row = self._db.execute(
            "SELECT created_ms FROM messages WHERE class = ? ORDER BY id LIMIT 1", (rank,)
        ).fetchone()
        return int(row[0]) if row else 1 << 62

    def _drop(self, rank: Rank, lost: int) -> None:
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


def _merged(first: Header, second: Header) -> bytes | None:
    """One message for both, or None where they must stay two."""
    merged = merge_messages(first, second)
    try:
        return None if merged is None else _encode(merged)
    except InvalidMessageError:  # together they are too large
        return None


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
