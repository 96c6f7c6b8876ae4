"""The audit log: each row's hash covers the row and the hash before it.

Changing or removing any row but the last ones breaks the chain, which `find_break` tells.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, desc, insert, select

from controller.schema import audit

GENESIS = "0" * 64


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


def hash_of(row: dict[str, Any]) -> str:
    """Hash of a row without its id and hash."""
    keys = ("ts_ms", "actor", "action", "subject", "data", "previous")
    text = json.dumps([row[key] for key in keys], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find_break(connection: Connection) -> int | None:
    """Id of the first row that does not fit the chain; None if it holds."""
    previous = GENESIS
    for row in connection.execute(select(audit).order_by(audit.c.id)).mappings():
        if row["previous"] != previous or row["hash"] != hash_of(dict(row)):
            return int(row["id"])
        previous = row["hash"]
    return None


def list_rows(
    connection: Connection, limit: int, before: int | None = None
) -> list[dict[str, Any]]:
    """Newest rows first."""
    query = select(audit).order_by(desc(audit.c.id)).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [dict(row) for row in connection.execute(query).mappings()]
