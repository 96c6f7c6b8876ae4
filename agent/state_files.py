"""What lies in the state folder, and how its two databases are made.

Made once, at enrolment, by a short-lived process with sqlite-utils; the resident agent only opens
them (`open_database`), since importing sqlite-utils brings numpy along. An outbox that is broken it
makes anew.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from shoal.errors import InvalidInputError, ShoalError

SCHEMA_VERSION = 1

STATE_TABLES: dict[str, dict[str, type]] = {
    "slots": {"model": str, "document": bytes},
    "meta": {"key": str, "value": bytes},
}
OUTBOX_TABLES: dict[str, dict[str, type]] = {
    "messages": {
        "id": int,
        "class": int,
        "channel": str,
        "model": str,
        "body": bytes,
        "created_ms": int,
        "boot_id": str,
        "seq": int,
    },
    "dropped": {"class": int, "count": int},
}
OUTBOX_INDEXES = {
    "idx_messages_boot_id_seq": "boot_id, seq",
    "idx_messages_class_id": "class, id",
}
_SQL_TYPES = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}
KEYS = {"slots": "model", "meta": "key", "messages": "id", "dropped": "class"}


def open_database(path: Path) -> sqlite3.Connection:
    """Open one of the databases, or raise saying that the device must enrol first."""
    if not path.exists():
        raise InvalidInputError(
            f"{path}: not there; run shoal-agent enrol first", code="not-enrolled"
        )
    connection = sqlite3.connect(path, isolation_level=None, timeout=10.0)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        connection.close()
        raise InvalidInputError(f"{path}: schema {version}, this agent has {SCHEMA_VERSION}")
    return connection


def check_writable(folder: Path) -> None:
    """Raise in one sentence where nothing can be written; a start could not be counted there."""
    if folder.exists() and not os.access(folder, os.W_OK):
        raise ShoalError(
            f"{folder}: the state folder is read-only; mount it writable, or let the agent's user "
            f"write there",
            code="read-only-state",
        )


def create_outbox(connection: sqlite3.Connection, *, close: bool = False) -> None:
    """Make the outbox's tables, as enrolment does, for one that is in memory or was broken."""
    for table, columns in OUTBOX_TABLES.items():
        fields = ", ".join(
            f"{name} {_SQL_TYPES[kind]}{' PRIMARY KEY' if KEYS[table] == name else ''}"
            for name, kind in columns.items()
        )
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({fields})")
    for name, columns_of in OUTBOX_INDEXES.items():
        connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON messages ({columns_of})")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    if close:
        connection.close()


def set_aside(path: Path) -> None:
    """Put a broken database under another name, in place of the one put there before."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        target = path.with_name(f"{path.name}.broken{suffix}")
        target.unlink(missing_ok=True)
        if file.exists():
            file.replace(target)


def write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 atomically: temporary, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.part")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
