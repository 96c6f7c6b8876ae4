"""Routes of the fleet: counters, devices, and what they reported."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import Table

from controller import audit, enrolment, fleet, telemetry
from controller.api.common import (
    Actor,
    Document,
    Limit,
    Name,
    OfServices,
    Reading,
    RowId,
    SelectorText,
    SinceMs,
    items,
)
from controller.drift import device_drift
from controller.errors import NotFoundError
from controller.schema import captures, events, health, predictions, statistics, windows

router = APIRouter()

_TABLES: dict[str, Table] = {
    "windows": windows,
    "statistics": statistics,
    "predictions": predictions,
    "events": events,
    "health": health,
    "captures": captures,
}


@router.get("/fleet", tags=["fleet"])
def read_fleet(services: OfServices, connection: Reading) -> Document:
    """Count devices by status, in all and at each site."""
    return fleet.counters(connection, services.now_ms(), services.offline_after_ms)


@router.get("/devices", tags=["fleet"])
def list_devices(
    services: OfServices,
    connection: Reading,
    site: Name = None,
    status: Name = None,
    model: Name = None,
    version: Name = None,
    q: SelectorText = None,
    limit: Limit = 100,
    cursor: Name = None,
) -> Document:
    """List devices by name; `q` is a selector, or parts of the name."""
    filters = {"site": site, "status": status, "model": model, "version": version, "q": q}
    page, following = fleet.list_devices(
        connection,
        services.now_ms(),
        services.offline_after_ms,
        filters=filters,
        limit=limit,
        after=cursor,
    )
    return items(page, following)


@router.get("/devices/{device}", tags=["fleet"])
def read_device(device: str, services: OfServices, connection: Reading) -> Document:
    """One device with its models, facts and newest health."""
    return fleet.get_device(connection, device, services.now_ms(), services.offline_after_ms)


@router.post("/devices/{device}/revoke", tags=["fleet"])
async def revoke_device(device: str, services: OfServices, actor: Actor) -> Document:
    """Take a device out of the fleet and cut it off at the broker."""
    enrolment.revoke(services, device, actor)
    await enrolment.update_accounts(services)
    await enrolment.cut_off(services, device)
    return {"device": device, "revoked": True}


@router.get("/devices/{device}/drift", tags=["telemetry"])
def read_drift(
    device: str,
    model: str,
    services: OfServices,
    connection: Reading,
    windows: Annotated[int, Query(ge=1, le=1000)] = 60,
) -> Document:
    """Compare the newest windows with the baseline of their release."""
    _check_device(services, connection, device)
    document = device_drift(connection, services.artifacts, device, model, windows)
    monitor = services.drift_monitor
    return document | {"channels": monitor.standing(device, model) if monitor else {}}


@router.get("/devices/{device}/{kind}", tags=["telemetry"])
def list_telemetry(
    device: str,
    kind: str,
    services: OfServices,
    connection: Reading,
    model: Name = None,
    since_ms: SinceMs = None,
    until_ms: SinceMs = None,
    limit: Limit = 100,
    cursor: Name = None,
) -> Document:
    """List windows, statistics, predictions, events, health or captures, newest first."""
    if kind not in _TABLES:
        raise NotFoundError(f"{kind[:40]}: expected one of {', '.join(_TABLES)}")
    _check_device(services, connection, device)
    table = _TABLES[kind]
    only = model if "model" in table.c else None
    return items(
        *telemetry.newest(
            connection,
            table,
            limit=limit,
            device=device,
            model=only,
            since_ms=since_ms,
            until_ms=until_ms,
            cursor=cursor,
        )
    )


@router.get("/events", tags=["telemetry"])
def list_events(
    connection: Reading,
    model: Name = None,
    rollout: Name = None,
    since_ms: SinceMs = None,
    limit: Limit = 100,
    cursor: Name = None,
) -> Document:
    """List what happened in the fleet, newest first."""
    return items(
        *telemetry.newest(
            connection,
            events,
            limit=limit,
            model=model,
            rollout=rollout,
            since_ms=since_ms,
            cursor=cursor,
        )
    )


@router.get("/rejections", tags=["telemetry"])
def list_rejections(connection: Reading) -> Document:
    """List invalid messages, counted by device, channel and code."""
    return items(telemetry.rejections(connection))


@router.get("/audit", tags=["audit"])
def list_audit(connection: Reading, limit: Limit = 100, before: RowId = None) -> Document:
    """List who changed what, newest first, and where the chain of hashes breaks, if it does."""
    found = items(audit.list_rows(connection, limit, before))
    if before is None:  # the whole chain is read for it, so not for every page
        found["first_broken_id"] = audit.find_break(connection)
    return found


def _check_device(services: OfServices, connection: Reading, device: str) -> None:
    fleet.get_device(connection, device, services.now_ms(), services.offline_after_ms)
