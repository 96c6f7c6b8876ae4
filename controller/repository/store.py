"""Published metadata in the database: every version that a client may still ask for.

What belongs together is written in one transaction, so a controller that dies leaves either the
old repository or the new one. Roots stay for ever, other versions for a day after their end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, func, insert, select, update
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from controller.errors import NotFoundError
from controller.schema import trust_metadata as table
from shoal.trust.metadata import Contents, decode, encode
from shoal.trust.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP

KEPT_MS = 24 * 3600 * 1000
"""A slow client (blocks over MQTT) may still fetch what an old snapshot names."""

_VERSIONED = re.compile(r"([1-9][0-9]{0,15})\.(root|targets|snapshot|bin-[0-9a-f]{1,8})\.json\Z")
T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


def put(connection: Connection, role: str, metadata: Metadata[Any], now_ms: int) -> None:
    """Make a version the current one of its role."""
    here = (table.c.role == role) & table.c.ended_ms.is_(None)
    connection.execute(update(table).where(here).values(ended_ms=now_ms))
    connection.execute(
        insert(table).values(
            role=role,
            version=metadata.signed.version,
            body=encode(metadata),
            expires_ms=int(metadata.signed.expires.timestamp() * 1000),
            added_ms=now_ms,
        )
    )


def prune(connection: Connection, now_ms: int) -> None:
    """Forget what no client asks for any more."""
    old = (table.c.ended_ms < now_ms - KEPT_MS) & (table.c.role != ROOT)
    connection.execute(delete(table).where(old))


def contents(connection: Connection, bins: Iterable[str] | None = None) -> Contents | None:
    """What is published, with these bins (None: all); None before the first root."""
    root, targets = current(connection, ROOT, Root), current(connection, TARGETS, Targets)
    if root is None or targets is None:
        return None
    c = table.c
    query = select(c.role, c.body).where(c.ended_ms.is_(None), c.role.like("bin-%"))
    if bins is not None:
        query = query.where(c.role.in_(list(bins)))
    found = {row.role: decode(row.body, Targets, row.role) for row in connection.execute(query)}
    return Contents(root, targets, found)


def roots(connection: Connection) -> tuple[Metadata[Root], ...]:
    """Every root, from the first."""
    query = select(table.c.body).where(table.c.role == ROOT).order_by(table.c.version)
    return tuple(decode(body, Root, ROOT) for body in connection.scalars(query))


def snapshot(connection: Connection) -> Metadata[Snapshot] | None:
    """The current snapshot."""
    return current(connection, SNAPSHOT, Snapshot)


def timestamp(connection: Connection) -> Metadata[Timestamp] | None:
    """The current timestamp."""
    return current(connection, TIMESTAMP, Timestamp)


def current(connection: Connection, role: str, kind: type[T]) -> Metadata[T] | None:
    """The current version of a role."""
    body = current_body(connection, role)
    return None if body is None else decode(body, kind, role)


def current_body(connection: Connection, role: str) -> bytes | None:
    """Its bytes as they are served."""
    query = select(table.c.body).where(table.c.role == role, table.c.ended_ms.is_(None))
    return connection.scalar(query)


def body(connection: Connection, role: str, version: int) -> bytes | None:
    """Bytes of one version."""
    query = select(table.c.body).where(table.c.role == role, table.c.version == version)
    return connection.scalar(query)


def named_body(connection: Connection, name: str) -> bytes | None:
    """What a client asks for by name: `timestamp.json`, `7.root.json`; None where there is none."""
    if name == f"{TIMESTAMP}.json":
        return current_body(connection, TIMESTAMP)
    found = _VERSIONED.match(name)
    if found is None:
        raise NotFoundError(f"metadata {name[:80]!r}: no such name")
    return body(connection, found[2], int(found[1]))


def versions(connection: Connection) -> dict[str, int]:
    """The current version of targets and of every bin: what a snapshot lists."""
    c = table.c
    wanted = (c.role == TARGETS) | c.role.like("bin-%")
    query = select(c.role, func.max(c.version)).where(wanted).group_by(c.role)
    return {role: version for role, version in connection.execute(query)}  # noqa: C416 - rows
