"""The audit log: rows that are only ever added, each chained to the one before (`shoal.audit`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, desc, insert, or_, select

from controller.schema import audit
from shoal.audit import GENESIS, hash_of, walk


def record(
    connection: Connection,
    now_ms: int,
    actor: str,
    action: str,
    subject: str,
    data: dict[str, Any] | None = None,
) -> None:
    """Append a row, in the transaction of the change it tells of."""
    last = connection.scalar(select(audit.c.hash).order_by(desc(audit.c.id)).limit(1))
    row = {
        "ts_ms": now_ms,
        "actor": actor,
        "action": action,
        "subject": subject,
        "data": data or {},
        "previous": last or GENESIS,
    }
    connection.execute(insert(audit).values(**row, hash=hash_of(row)))


def find_break(connection: Connection) -> int | None:
    """Id of the first row that does not fit the chain; None if it holds."""
    rows = connection.execute(select(audit).order_by(audit.c.id)).mappings()
    return walk(dict(row) for row in rows).broken_id


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows: by who, what and when."""

    actor: str = ""
    action: str = ""
    """The action, or its first part: `rollout` finds `rollout.start`."""
    subject: str = ""
    """Part of it."""
    since_ms: int | None = None
    until_ms: int | None = None


def list_rows(
    connection: Connection, limit: int, before: int | None = None, wanted: Filter | None = None
) -> list[dict[str, Any]]:
    """Newest rows first."""
    query = select(audit).order_by(desc(audit.c.id)).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    if wanted is not None:
        query = query.where(*_conditions(wanted))
    return [dict(row) for row in connection.execute(query).mappings()]


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    c, found = audit.c, []
    if wanted.actor:
        found.append(c.actor == wanted.actor)
    if wanted.action:
        below = c.action.startswith(f"{wanted.action}.", autoescape=True)
        found.append(or_(c.action == wanted.action, below))
    if wanted.subject:
        found.append(c.subject.contains(wanted.subject, autoescape=True))
    if wanted.since_ms is not None:
        found.append(c.ts_ms >= wanted.since_ms)
    if wanted.until_ms is not None:
        found.append(c.ts_ms < wanted.until_ms)
    return found
