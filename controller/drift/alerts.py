"""Alerts: a stream that changed, from its beginning to its end, said once.

`open_alert` and `end_alert` are idempotent; one that comes again soon after its end is the same.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, desc, insert, select, update

from controller import audit
from controller.errors import ConflictError, NotFoundError
from controller.schema import alerts

Document = dict[str, Any]

REOPEN_MS = 3_600_000
_KEY = ("scope", "subject", "model", "family", "field", "kind")
MAX_NOTE = 2000


def open_alert(connection: Connection, found: Document, now_ms: int) -> int:
    """Store what began; `found` has the key, sentence, evidence and started_ms. Return the id."""
    c = alerts.c
    same = [c[name] == found[name] for name in _KEY]
    last = connection.execute(select(alerts).where(*same).order_by(desc(c.id)).limit(1)).first()
    told = {name: found[name] for name in ("sentence", "evidence")}
    if last is not None and (last.ended_ms is None or now_ms - last.ended_ms < REOPEN_MS):
        connection.execute(update(alerts).where(c.id == last.id).values(ended_ms=None, **told))
        return int(last.id)
    row = {name: found[name] for name in _KEY} | told
    result = connection.execute(
        insert(alerts).values(**row, started_ms=found["started_ms"], opened_ms=now_ms)
    )
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def end_alert(connection: Connection, found: Document, now_ms: int) -> None:
    """Mark what ended."""
    same = [alerts.c[name] == found[name] for name in _KEY]
    connection.execute(
        update(alerts).where(*same, alerts.c.ended_ms.is_(None)).values(ended_ms=now_ms)
    )


def list_alerts(
    connection: Connection,
    *,
    state: str = "open",
    model: str | None = None,
    subject: str | None = None,
    limit: int = 100,
    before: int | None = None,
) -> tuple[list[Document], int | None]:
    """Newest first, and the id to go on before."""
    c = alerts.c
    query = select(alerts).order_by(desc(c.id)).limit(limit + 1)
    if state == "open":
        query = query.where(c.ended_ms.is_(None))
    elif state == "ended":
        query = query.where(c.ended_ms.is_not(None))
    for column, value in ((c.model, model), (c.subject, subject)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(c.id < before)
    rows = [_document(row) for row in connection.execute(query).mappings()]
    return rows[:limit], rows[limit - 1]["id"] if len(rows) > limit else None


def get_alert(connection: Connection, number: int) -> Document:
    """One alert, or `NotFoundError`."""
    row = connection.execute(select(alerts).where(alerts.c.id == number)).mappings().first()
    if row is None:
        raise NotFoundError(f"alert {number}: there is none")
    return _document(row)


def acknowledge(
    connection: Connection, number: int, actor: str, now_ms: int, *, note: str, accept: bool
) -> Document:
    """Say that somebody has seen it; with `accept`, that the present level is the new normal."""
    alert = get_alert(connection, number)
    if accept and alert["ended_ms"] is not None:
        raise ConflictError(
            f"alert {number}: has ended, there is nothing to accept", code="wrong-state"
        )
    values: Document = {
        "acknowledged_ms": now_ms,
        "acknowledged_by": actor,
        "note": note[:MAX_NOTE],
    }
    if accept:
        values["accepted"] = True
    connection.execute(update(alerts).where(alerts.c.id == number).values(**values))
    audit.record(
        connection,
        now_ms,
        actor,
        "alert.accept" if accept else "alert.acknowledge",
        f"alert {number}",
        {"note": note[:MAX_NOTE]},
    )
    return get_alert(connection, number)


def accepted(connection: Connection) -> list[Document]:
    """Alerts whose level somebody accepted, which the detector does not know yet."""
    query = select(alerts).where(alerts.c.accepted.is_(True), alerts.c.applied.is_(False))
    return [dict(row) for row in connection.execute(query).mappings()]


def end_accepted(connection: Connection, number: int, now_ms: int) -> None:
    """The detector knows: what was accepted is over."""
    here = alerts.c.id == number
    connection.execute(update(alerts).where(here).values(applied=True, ended_ms=now_ms))


def drifting_fields(connection: Connection, device: str, model: str) -> set[tuple[str, str]]:
    """(family, field) with an open alert: what *drifting* means everywhere."""
    c = alerts.c
    query = select(c.family, c.field).where(
        c.scope == "device", c.subject == device, c.model == model, c.ended_ms.is_(None)
    )
    return {(row.family, row.field) for row in connection.execute(query)}


def _document(row: Any) -> Document:
    hidden = ("applied", "notify_attempts")
    return {name: value for name, value in row.items() if name not in hidden}
