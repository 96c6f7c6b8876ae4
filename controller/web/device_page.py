"""The device page: status with its reason, slots, charts, statistics, events, health."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, desc, select

from controller import enrolment, fleet, telemetry
from controller.api.common import Name, OfServices, Reading, SinceMs
from controller.drift import device_drift
from controller.drift.alerts import list_alerts
from controller.errors import NotFoundError
from controller.schema import events, executions, windows
from controller.services import Services
from controller.web import series
from controller.web.forms import read_form
from controller.web.histogram import Bar, draw_histogram
from controller.web.refusals import PageRoute
from controller.web.rendering import Acting, page, redirect

router = APIRouter(prefix="/devices", route_class=PageRoute, include_in_schema=False)

EVENTS_SHOWN = 30
ALERTS_SHOWN = 5
WINDOWS_SHOWN = 10
EXECUTIONS_SHOWN = 6
SERIES_MOST = 1000


@router.get("/{device}")
def show_device(
    request: Request, device: str, services: OfServices, connection: Reading, model: Name = None
) -> Response:
    """One device; `model` chooses among several."""
    found = fleet.get_device(connection, device, services.now_ms(), services.offline_after_ms)
    chosen = choose_model(found["models"], model)
    part = request.query_params.get("part", "")
    context: dict[str, Any] = {"device": found, "chosen": chosen}
    if part in ("", "live_status"):
        context["alerts"], _ = list_alerts(
            connection, state="open", model=None, subject=device, limit=ALERTS_SHOWN, before=None
        )
    if part in ("", "live_models"):
        name = chosen["model"] if chosen else None
        context["windows"], _ = telemetry.newest(
            connection, windows, limit=WINDOWS_SHOWN, device=device, model=name
        )
    if part in ("", "live_statistics"):
        context |= statistics(connection, services, device, chosen)
    if part in ("", "live_events"):
        context["events"], _ = telemetry.newest(
            connection, events, limit=EVENTS_SHOWN, device=device
        )
        context["executions"] = recent_executions(connection, device)
    drawn = {"histograms": histograms(context.get("drift"))}
    return page(request, "device.html", context, drawn=drawn, api=f"/devices/{device}")


@router.get("/{device}/series")
def read_series(
    device: str, model: str, connection: Reading, since_ms: SinceMs = None
) -> dict[str, Any]:
    """What the charts draw: columns of the newest windows, in time order."""
    c = windows.c
    query = select(
        c.start_ms, c.end_ms, c.version, c.in_count, c.failed, c.latency_p50_us, c.latency_p95_us
    ).where(c.device == device, c.model == model)
    if since_ms is not None:
        query = query.where(c.end_ms > since_ms)
    rows = connection.execute(query.order_by(desc(c.end_ms)).limit(SERIES_MOST)).all()
    return series.columns([dict(row._mapping) for row in reversed(rows)])


@router.post("/{device}/revoke")
async def revoke(request: Request, device: str, services: OfServices, person: Acting) -> Response:
    """Take the device out of the fleet."""
    await read_form(request)
    await asyncio.to_thread(enrolment.revoke, services, device, person.name)
    await enrolment.update_accounts(services)
    await enrolment.cut_off(services, device)
    return redirect(request, f"/devices/{device}")


def choose_model(models: list[dict[str, Any]], wanted: str | None) -> dict[str, Any] | None:
    """The model that is asked for, or the first; None where there is none."""
    if wanted is None:
        return models[0] if models else None
    for one in models:
        if one["model"] == wanted:
            return one
    raise NotFoundError(f"model {wanted[:80]!r}: this device has not reported it")


def statistics(
    connection: Connection, services: Services, device: str, chosen: dict[str, Any] | None
) -> dict[str, Any]:
    """The drift document, or why there is none."""
    if chosen is None:
        return {"drift": None, "no_drift": "No model has been reported yet."}
    try:
        drift = device_drift(connection, services.artifacts, device, chosen["model"])
    except NotFoundError as error:
        return {"drift": None, "no_drift": error.sentence}
    return {"drift": drift, "no_drift": ""}


def histograms(drift: dict[str, Any] | None) -> dict[str, list[Bar]]:
    """A drawing for each field. Pure."""
    rows = [] if drift is None else [*drift["features"], *drift["outputs"]]
    return {
        row["name"]: draw_histogram(row["edges"], row["baseline_bins"], row["bins"]) for row in rows
    }


def recent_executions(connection: Connection, device: str) -> list[dict[str, Any]]:
    """The rollouts that this device took part in, newest first."""
    c = executions.c
    query = select(executions).where(c.device == device).order_by(desc(c.updated_ms))
    return [dict(row) for row in connection.execute(query.limit(EXECUTIONS_SHOWN)).mappings()]
