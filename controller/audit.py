"""The audit log: rows that are only ever added, each chained to the one before (`shoal.audit`)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, desc, insert, select

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


def list_rows(
    connection: Connection, limit: int, before: int | None = None
) -> list[dict[str, Any]]:
    """Newest rows first."""
    query = select(audit).order_by(desc(audit.c.id)).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [dict(row) for row in connection.execute(query).mappings()]
