"""The page of alerts: streams that changed, and the buttons that say somebody has seen it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from controller.api.common import Name, OfServices, Reading
from controller.database import writing
from controller.drift import alerts
from controller.repository.status import describe_status
from controller.services import Services
from controller.web.forms import read_form
from controller.web.refusals import PageRoute
from controller.web.rendering import Acting, page, redirect, with_query

router = APIRouter(prefix="/alerts", route_class=PageRoute, include_in_schema=False)

ROWS_SHOWN = 100
Number = Annotated[int, Path(ge=0, le=2**53)]


@router.get("")
def show_alerts(
    request: Request,
    services: OfServices,
    connection: Reading,
    state: Literal["open", "ended", "all"] = "open",
    model: Name = None,
    subject: Name = None,
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> Response:
    """Alerts, newest first."""
    found, following = alerts.list_alerts(
        connection,
        state=state,
        model=model or None,
        subject=subject or None,
        limit=ROWS_SHOWN,
        before=before,
    )
    query: dict[str, Any] = {"state": state, "model": model, "subject": subject}
    trust = describe_status(connection, services.keyring, datetime.now(UTC))
    context = {
        "alerts": found,
        "following": following,
        "before": before,
        "query": query,
        "warnings": trust["warnings"],
    }
    return page(request, "alerts.html", context, api=with_query("/alerts", **query))


@router.post("/{number}/{verb}")
async def acknowledge(
    request: Request,
    number: Number,
    verb: Literal["acknowledge", "accept"],
    services: OfServices,
    person: Acting,
) -> Response:
    """Say that it was seen, or that the present level is the new normal."""
    fields = await read_form(request)
    note = fields.get("note", "")[: alerts.MAX_NOTE]
    await asyncio.to_thread(_acknowledge, services, number, person.name, note, verb == "accept")
    return redirect(request, "/alerts")


def _acknowledge(services: Services, number: int, actor: str, note: str, accept: bool) -> None:
    with writing(services.engine) as connection:
        alerts.acknowledge(connection, number, actor, services.now_ms(), note=note, accept=accept)
