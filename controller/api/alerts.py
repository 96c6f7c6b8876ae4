"""Routes of alerts: streams that changed."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Path, Query

from controller.api.common import (
    Actor,
    Document,
    Limit,
    Name,
    OfServices,
    Reading,
    items,
)
from controller.api.json_body import JsonRoute
from controller.database import writing
from controller.drift import alerts
from controller.rollouts.proposals import propose

router = APIRouter(prefix="/alerts", tags=["alerts"], route_class=JsonRoute)

Number = Annotated[int, Query(ge=0, le=2**53)]
Alert = Annotated[int, Path(ge=0, le=2**53)]
State = Literal["open", "ended", "all"]


@router.get("")
def list_alerts(
    connection: Reading,
    state: State = "open",
    model: Name = None,
    subject: Name = None,
    limit: Limit = 100,
    before: Number | None = None,
) -> Document:
    """List alerts, newest first; `before` goes on from `next_cursor`."""
    found, following = alerts.list_alerts(
        connection, state=state, model=model, subject=subject, limit=limit, before=before
    )
    return items(found, None if following is None else str(following))


@router.get("/{number}")
def read_alert(number: Alert, connection: Reading) -> Document:
    """One alert with its evidence."""
    return alerts.get_alert(connection, number)


@router.post("/{number}/propose", status_code=201)
def propose_rollout(
    number: Alert,
    services: OfServices,
    actor: Actor,
    version: Annotated[str, Body(embed=True, max_length=40)],
) -> Document:
    """Draft a rollout of a release to the devices that an alert is about; it starts nothing."""
    return propose(services, number, version, actor)


@router.post("/{number}/acknowledge")
def acknowledge_alert(
    number: Alert,
    services: OfServices,
    actor: Actor,
    note: Annotated[str, Body(max_length=alerts.MAX_NOTE)] = "",
    accept: Annotated[bool, Body()] = False,
) -> Document:
    """Say that it was seen; `accept` takes the present level as the new normal."""
    with writing(services.engine) as connection:
        return alerts.acknowledge(
            connection, number, actor, services.now_ms(), note=note, accept=accept
        )
