"""What devices reported, newest first."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Table, desc, select, tuple_

from controller import schema
from shoal.errors import InvalidInputError

Document = dict[str, Any]

MAX_ROWS = 1000
_TIME = {
    schema.windows: schema.windows.c.end_ms,
    schema.statistics: schema.statistics.c.end_ms,
    schema.predictions: schema.predictions.c.sample_ms,
    schema.events: schema.events.c.ts_ms,
    schema.health: schema.health.c.ts_ms,
    schema.captures: schema.captures.c.sample_ms,
}


def newest(
    connection: Connection,
    table: Table,
    *,
    limit: int,
    device: str | None = None,
    model: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    rollout: str | None = None,
    cursor: str | None = None,
) -> tuple[list[Document], str | None]:
    """The newest `limit` rows of a telemetry table that match, and the cursor of those before."""
    moment = _TIME[table]
    tie: Column[Any] = table.c.capture if table is schema.captures else table.c.id
    query = select(table).order_by(desc(moment), desc(tie)).limit(min(limit, MAX_ROWS))
    for name, value in (("device", device), ("model", model), ("rollout", rollout)):
        if value is not None:
            query = query.where(table.c[name] == value)
    if since_ms is not None:
        query = query.where(moment >= since_ms)
    if until_ms is not None:
        query = query.where(moment <= until_ms)
    if cursor is not None:
        query = query.where(tuple_(moment, tie) < _read_cursor(cursor, tie))
    found = [dict(row) for row in connection.execute(query).mappings()]
    more = len(found) == min(limit, MAX_ROWS)
    return found, f"{found[-1][moment.name]}-{found[-1][tie.name]}" if more else None


def _read_cursor(text: str, tie: Column[Any]) -> tuple[int, int | str]:
    moment, _, last = text.partition("-")
    try:
        return int(moment), tie.type.python_type(last)
    except ValueError:
        raise InvalidInputError(f"cursor {text[:40]!r}: not one of ours") from None


def rejections(connection: Connection) -> list[Document]:
    """Invalid messages, counted by device, channel and code; the latest first."""
    table = schema.rejections
    query = select(table).order_by(desc(table.c.last_ms)).limit(MAX_ROWS)
    return [dict(row) for row in connection.execute(query).mappings()]
