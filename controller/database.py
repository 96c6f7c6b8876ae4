"""The database: an engine for a URL, and transactions that say whether they write.

SQLite runs in WAL with one writer at a time; `writing` takes the write lock at the start
(BEGIN IMMEDIATE), so that a reader never has to become a writer half-way. With synchronous=NORMAL
the death of a process loses nothing; a power cut of the controller's machine may lose the commits
since the last checkpoint, also those a device has been told are committed. A durable transaction
(what is published in the TUF repository) is synced before anybody can see it.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.schema import CreateColumn

from controller.schema import metadata, settings
from shoal.errors import ShoalError

SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 10_000


def open_engine(url: str) -> Engine:
    """Return an engine; every connection of SQLite is set up alike."""
    engine = create_engine(url, json_serializer=_to_json, json_deserializer=msgspec.json.decode)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def create_tables(engine: Engine) -> None:
    """Make missing tables, columns and indexes; refuse a database of another schema version."""
    with writing(engine) as connection:  # or another process could come between look and make
        metadata.create_all(connection)
        _add_columns(connection)
        _add_indexes(connection)
        found = connection.scalar(select(settings.c.value).where(settings.c.key == "schema"))
        if found is None:
            connection.execute(insert(settings).values(key="schema", value=SCHEMA_VERSION))
        elif found != SCHEMA_VERSION:
            raise ShoalError(
                f"database {engine.url.render_as_string()}: schema {found}, "
                f"this controller has {SCHEMA_VERSION}",
                code="wrong-schema",
            )


def _add_columns(connection: Connection) -> None:
    """What later versions added to tables of an older one: nullable, or with a server default."""
    found = inspect(connection)
    quote = connection.dialect.identifier_preparer.quote
    for table in metadata.sorted_tables:
        known = {one["name"] for one in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                words = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {quote(table.name)} ADD COLUMN {words}")


def _add_indexes(connection: Connection) -> None:
    """What later versions look up in tables of an older one."""
    found = inspect(connection)
    for table in metadata.sorted_tables:
        known = {one["name"] for one in found.get_indexes(table.name)}
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            if index.name not in known:
                index.create(connection)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine, *, durable: bool = False) -> Iterator[Connection]:
    """One transaction that may write; committed at the end, rolled back on an error.

    A `durable` one survives a power cut as soon as anybody can see it.
    """
    with engine.connect() as connection:
        connection = connection.execution_options(shoal_writes=True, shoal_durable=durable)
        with connection.begin():
            yield connection


class ChangeFeed:
    """Says that something was committed by any process; cheap enough to ask often."""

    def __init__(self, engine: Engine, period_seconds: float = 0.25) -> None:
        self._engine = engine
        self._period = period_seconds
        self._connection: Connection | None = None
        self._last: int | None = None

    async def wait(self, most_seconds: float = math.inf) -> bool:
        """Return when the database has changed since the last call, or after `most_seconds`.

        Says whether it has changed.
        """
        deadline = time.monotonic() + most_seconds
        while True:
            version = await asyncio.to_thread(self._version)
            if version != self._last:
                self._last = version
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(self._period)

    def _version(self) -> int:
        if self._connection is None:
            self._connection = self._engine.connect()
        version: int = self._connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        self._connection.rollback()
        return version

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _to_json(value: Any) -> str:
    """Also of a wire message or its parts, which nobody needs to turn into dictionaries first."""
    return msgspec.json.encode(value).decode()


def _set_up_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin event decides, not the driver
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    writes = options.get("shoal_writes", False)
    wanted = "FULL" if options.get("shoal_durable", False) else "NORMAL"
    if connection.info.setdefault("synchronous", "NORMAL") != wanted:
        connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
        connection.info["synchronous"] = wanted
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
