"""What devices reported, newest first."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, desc, select

from controller import schema

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
    rollout: str | None = None,
) -> list[Document]:
    """Rows of a telemetry table, the newest `limit` of those that match."""
    moment = _TIME[table]
    tie: ColumnElement[Any] = table.c.capture if table is schema.captures else table.c.id
    query = select(table).order_by(desc(moment), desc(tie)).limit(min(limit, MAX_ROWS))
    for name, value in (("device", device), ("model", model), ("rollout", rollout)):
        if value is not None:
            query = query.where(table.c[name] == value)
    if since_ms is not None:
        query = query.where(moment >= since_ms)
    return [dict(row) for row in connection.execute(query).mappings()]


def rejections(connection: Connection) -> list[Document]:
    """Invalid messages, counted by device, channel and code; the latest first."""
    table = schema.rejections
    query = select(table).order_by(desc(table.c.last_ms)).limit(MAX_ROWS)
    return [dict(row) for row in connection.execute(query).mappings()]
