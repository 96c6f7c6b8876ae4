"""The page of the audit log: who did what when, and whether the chain of hashes holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from controller import audit
from controller.api.common import Name, OfServices, Reading, RowId
from controller.database import reading
from controller.services import Services
from controller.web.refusals import PageRoute
from controller.web.rendering import page, with_query
from shoal.errors import InvalidInputError

router = APIRouter(prefix="/audit", route_class=PageRoute, include_in_schema=False)

ROWS_SHOWN = 100
EXPORT_ROWS = 1000
Day = Annotated[str | None, Query(max_length=40)]


@router.get("")
def show_audit(
    request: Request,
    services: OfServices,
    connection: Reading,
    actor: Name = None,
    action: Name = None,
    subject: Name = None,
    since: Day = None,
    until: Day = None,
    before: RowId = None,
) -> Response:
    """Rows, newest first; everything that filters is in the address."""
    query = {
        "actor": actor, "action": action, "subject": subject, "since": since, "until": until,
    }  # fmt: skip
    rows = audit.list_rows(connection, ROWS_SHOWN + 1, before, read_filter(**query))
    context: dict[str, Any] = {
        "rows": rows[:ROWS_SHOWN],
        "following": rows[ROWS_SHOWN - 1]["id"] if len(rows) > ROWS_SHOWN else None,
        "before": before,
        "query": query,
        "chain": chain_words(services, connection),
    }
    return page(request, "audit.html", context, api=with_query("/audit", before=before))


@router.get("/export")
async def export_audit(
    services: OfServices,
    actor: Name = None,
    action: Name = None,
    subject: Name = None,
    since: Day = None,
    until: Day = None,
) -> Response:
    """The same rows, all of them, newest first: one JSON document a line."""
    wanted = read_filter(actor, action, subject, since, until)
    headers = {"content-disposition": 'attachment; filename="audit.ndjson"'}
    return StreamingResponse(
        _lines(services, wanted), media_type="application/x-ndjson", headers=headers
    )


async def _lines(services: Services, wanted: audit.Filter) -> AsyncIterator[bytes]:
    """A piece at a time, so that neither memory nor a transaction grows with the log."""

    def read(before: int | None) -> list[dict[str, Any]]:
        with reading(services.engine) as connection:
            return audit.list_rows(connection, EXPORT_ROWS, before, wanted)

    rows = await asyncio.to_thread(read, None)
    while rows:
        yield b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        rows = await asyncio.to_thread(read, rows[-1]["id"])


def chain_words(services: Services, connection: Reading) -> dict[str, Any]:
    """How far the chain of hashes is checked, in words."""
    state = services.audit_check.look(connection, services.now_ms())
    if state.broken_id is not None:
        tone, words = "bad", f"The chain breaks at row {state.broken_id}: {state.why}."
    elif state.whole:
        tone, words = "good", f"The chain of hashes holds: all rows up to {state.newest_id} fit."
    else:
        tone, words = "busy", (
            f"Being checked: rows up to {state.checked_id:,} of {state.newest_id:,} fit. "
            "Reload to go on."
        )  # fmt: skip
    return {
        "checked_id": state.checked_id,
        "newest_id": state.newest_id,
        "broken_id": state.broken_id,
        "whole": state.whole,
        "since_ms": state.since_ms,
        "sentence": words,
        "tone": tone,
    }


def read_filter(
    actor: str | None,
    action: str | None,
    subject: str | None,
    since: str | None,
    until: str | None,
) -> audit.Filter:
    """What the address asks for, or raise naming what is wrong. Pure."""
    return audit.Filter(
        actor=actor or "",
        action=action or "",
        subject=subject or "",
        since_ms=read_moment("since", since),
        until_ms=read_moment("until", until),
    )


def read_moment(name: str, text: str | None) -> int | None:
    """A day or a time in UTC as milliseconds.

    >>> read_moment("since", "2026-01-02"), read_moment("since", "2026-01-02T03:04")
    (1767312000000, 1767323040000)
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{name}: expected a day or a time such as 2026-01-31 or 2026-01-31T14:30, "
            f"got {text[:40]!r}"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
