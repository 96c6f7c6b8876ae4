"""Captured samples on the disk: at most so many a day, so many bytes in all, for so long.

A store that cannot be written, or is broken, loses captures and counts them; nothing else notices.
Days and ages are those of steady time (`agent.clock`), which no setting of the clock moves.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.state_files import set_aside
from shoal.protocol.manifest import CapturePolicy

log = logging.getLogger("agent.capture")

DAY_MS = 86_400_000
_TABLE = """
CREATE TABLE IF NOT EXISTS samples (
    id INTEGER PRIMARY KEY, capture TEXT UNIQUE, model TEXT, sample_ms INTEGER, steady_ms INTEGER,
    bytes INTEGER, document BLOB
)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS samples_by_model ON samples (model, sample_ms)"


class Sample(Struct, frozen=True):
    """One captured window and its answer."""

    model: str
    version: str
    release_sequence: int
    manifest: str
    sample_ms: int
    reason: str
    rows: bytes
    """float32, window_rows × features; NaN where missing or redacted."""
    features: list[str]
    redacted: list[str]
    names: list[str]
    outputs: list[float | None]
    label: str = ""
    capture: str = ""
    """Its id; the store gives it."""


@dataclass(slots=True)
class _Day:
    number: int = -1
    samples: int = 0
    size: int = 0


class CaptureStore:
    """One SQLite file, opened with the first sample; used from the event loop's thread only."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._db: sqlite3.Connection | None = None
        self._days: dict[str, _Day] = {}
        self.lost: Counter[str] = Counter()
        """Samples not kept, by why: quota or disk."""

    def add(self, sample: Sample, policy: CapturePolicy, steady_ms: int) -> bool:
        """Keep a sample within the policy's quota; whether it was kept."""
        try:
            day = self._day(sample.model, steady_ms // DAY_MS)
            size = len(sample.rows) + 8 * len(sample.outputs) + 200
            if day.samples >= policy.per_day or day.size + size > policy.max_bytes_per_day:
                self.lost["quota"] += 1
                return False
            self._insert(sample, size, steady_ms)
            self._clean(sample.model, policy, steady_ms)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return False
        day.samples += 1
        day.size += size
        return True

    def has_room(self, model: str, policy: CapturePolicy, steady_ms: int) -> bool:
        """Whether the day's quota allows one more; cheap, before a sample is made."""
        day = self._days.get(model)
        if day is None or day.number != steady_ms // DAY_MS or day.samples < policy.per_day:
            return True
        self.lost["quota"] += 1
        return False

    def find(self, model: str, since_ms: int, until_ms: int, limit: int) -> list[Sample]:
        """Samples of a model within a time, newest first."""
        query = (
            "SELECT capture, document FROM samples WHERE model = ? AND sample_ms BETWEEN ? AND ?"
            " ORDER BY sample_ms DESC, id DESC LIMIT ?"
        )
        return self._read(query, (model, since_ms, until_ms, limit))

    def get(self, model: str, capture: str) -> Sample | None:
        """One sample."""
        query = "SELECT capture, document FROM samples WHERE model = ? AND capture = ?"
        return next(iter(self._read(query, (model, capture))), None)

    def count(self) -> int:
        """Samples kept."""
        try:
            (found,) = self._open().execute("SELECT COUNT(*) FROM samples").fetchone()
        except (sqlite3.Error, OSError):
            return 0
        return int(found)

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            database = sqlite3.connect(self._path, isolation_level=None, timeout=1.0)
            try:
                self._path.chmod(0o600)
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=NORMAL")
                database.execute("PRAGMA cache_size=-256")
                database.execute(_TABLE)
                database.execute(_INDEX)
            except (sqlite3.Error, OSError):
                database.close()
                raise
            self._db = database
        return self._db

    def _read(self, query: str, values: tuple[object, ...]) -> list[Sample]:
        try:
            rows = self._open().execute(query, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return []
        samples = [(capture, msgspec.json.decode(data, type=Sample)) for capture, data in rows]
        return [msgspec.structs.replace(one, capture=capture) for capture, one in samples]

    def _insert(self, sample: Sample, size: int, steady_ms: int) -> None:
        self._open().execute(
            "INSERT INTO samples (capture, model, sample_ms, steady_ms, bytes, document)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                uuid.uuid4().hex[:12],
                sample.model,
                sample.sample_ms,
                steady_ms,
                size,
                msgspec.json.encode(sample),
            ),
        )

    def _day(self, model: str, number: int) -> _Day:
        """Today's counters of a model; after a restart they are counted from the file."""
        day = self._days.get(model)
        if day is None or day.number != number:
            samples, size = (
                self._open()
                .execute(
                    "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM samples"
                    " WHERE model = ? AND steady_ms >= ?",
                    (model, number * DAY_MS),
                )
                .fetchone()
            )
            day = self._days[model] = _Day(number, samples, size)
        return day

    def _clean(self, model: str, policy: CapturePolicy, steady_ms: int) -> None:
        """Let go of what is too old, and of the oldest beyond the device's cap."""
        database = self._open()
        oldest = steady_ms - int(policy.keep_days * DAY_MS)
        database.execute("DELETE FROM samples WHERE model = ? AND steady_ms < ?", (model, oldest))
        (size,) = database.execute("SELECT COALESCE(SUM(bytes), 0) FROM samples").fetchone()
        while size > self._max_bytes:
            gone = database.execute(
                "DELETE FROM samples WHERE id IN (SELECT id FROM samples ORDER BY id LIMIT 16)"
                " RETURNING bytes"
            ).fetchall()
            size -= sum(one for (one,) in gone)

    def _fail(self, error: Exception) -> None:
        """Count the loss; put a broken file aside, so that the next sample begins a new one."""
        if not self.lost["disk"]:
            log.error("captures not writable error=%r", str(error))
        self.lost["disk"] += 1
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        ):
            with contextlib.suppress(sqlite3.Error):
                self.close()
            self._db = None
            self._days.clear()
            with contextlib.suppress(OSError):
                set_aside(self._path)
