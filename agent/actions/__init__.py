"""What happens with answers: published over MQTT, appended to a table or a file.

An action takes answers and returns at once; what it writes is small and local, so a commit a
batch is fast enough, and a full disk is counted, never fatal.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.ports import Action, Answers
from shoal.errors import InvalidInputError

MAX_MESSAGE_ROWS = 100
FLUSH_SECONDS = 1.0


class PredictionBatcher:
    """Collects answers of one model into messages of at most 100 rows or one second."""

    def __init__(self, publish: Callable[[Answers], None]) -> None:
        self._publish = publish
        self._held: Answers | None = None
        self._since = 0.0

    def __call__(self, answers: Answers) -> None:
        """Take answers; publish what is full or belongs to another release."""
        held = self._held
        if held is None:
            self._held, self._since = answers, time.monotonic()
        elif held.release_sequence == answers.release_sequence:
            self._held = Answers(
                held.model,
                held.version,
                held.release_sequence,
                held.names,
                held.times_ms + answers.times_ms,
                held.values + answers.values,
                held.labels + answers.labels,
            )
        else:
            self.flush()
            self._held, self._since = answers, time.monotonic()
        if self._held is not None and (
            len(self._held.times_ms) >= MAX_MESSAGE_ROWS
            or time.monotonic() - self._since >= FLUSH_SECONDS
        ):
            self.flush()

    def flush(self) -> None:
        """Publish what is held."""
        held, self._held = self._held, None
        if held is None:
            return
        for start in range(0, len(held.times_ms), MAX_MESSAGE_ROWS):
            cut = slice(start, start + MAX_MESSAGE_ROWS)
            self._publish(
                Answers(
                    held.model,
                    held.version,
                    held.release_sequence,
                    held.names,
                    held.times_ms[cut],
                    held.values[cut],
                    held.labels[cut],
                )
            )


class SqliteAction:
    """Appends to table `predictions(time_ms, model, version, label, values)` of a file."""

    def __init__(self, path: Path, max_rows: int) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS predictions (id INTEGER PRIMARY KEY, time_ms INTEGER,"
            " model TEXT, version TEXT, label TEXT, outputs TEXT)"
        )
        self._max_rows = max_rows
        self.failed = 0

    def __call__(self, answers: Answers) -> None:
        """Write all rows in one transaction; beyond `max_rows` the oldest go."""
        labels = answers.labels or [""] * len(answers.times_ms)
        rows = [
            (ms, answers.model, answers.version, label, json.dumps(dict(zip(answers.names, v))))  # noqa: B905
            for ms, v, label in zip(answers.times_ms, answers.values, labels, strict=True)
        ]
        try:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT INTO predictions (time_ms, model, version, label, outputs)"
                " VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            self._connection.execute(
                "DELETE FROM predictions WHERE id <= (SELECT MAX(id) FROM predictions) - ?",
                (self._max_rows,),
            )
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self.failed += len(rows)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def flush(self) -> None:
        """Nothing is held back."""


class FileAction:
    """Appends NDJSON lines; at `max_bytes` the file is renamed to `*.1` and begun anew."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self.failed = 0

    def __call__(self, answers: Answers) -> None:
        """Append one line a row."""
        labels = answers.labels or [""] * len(answers.times_ms)
        lines = [
            json.dumps(
                {
                    "time_ms": ms,
                    "model": answers.model,
                    "version": answers.version,
                    "label": label,
                    **dict(zip(answers.names, values, strict=True)),
                }
            )
            for ms, values, label in zip(answers.times_ms, answers.values, labels, strict=True)
        ]
        try:
            if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            with self._path.open("a") as file:
                file.write("\n".join(lines) + "\n")
        except OSError:
            self.failed += len(lines)

    def flush(self) -> None:
        """Nothing is held back."""


def build_action(options: dict[str, Any], publish: Callable[[Answers], None]) -> Action:
    """Make an action from its TOML table; raise `InvalidInputError` naming the key at fault."""
    kind = options.get("kind")
    if kind == "mqtt":
        return PredictionBatcher(publish)
    if kind not in ("sqlite", "file"):
        raise InvalidInputError(f"actions.kind {kind!r}: expected mqtt, sqlite or file")
    if "path" not in options:
        raise InvalidInputError(f"actions ({kind}): key path is missing")
    path = Path(options["path"])
    if kind == "sqlite":
        return SqliteAction(path, int(options.get("max_rows", 1_000_000)))
    return FileAction(path, int(options.get("max_bytes", 64 * 1024 * 1024)))
