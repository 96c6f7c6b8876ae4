"""The page of drift: every model's fields, in the fleet and at each site, the worst first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection, desc, select

from controller.api.common import Name, Reading
from controller.drift.compare import STRONG
from controller.drift.courses import Wanted, list_courses
from controller.drift.watch import FLEET
from controller.schema import alerts, device_models, devices
from controller.web.fleet_page import known_models
from controller.web.refusals import PageRoute
from controller.web.rendering import page, with_query
from controller.web.sparkline import Sparkline, draw_sparkline

router = APIRouter(prefix="/drift", route_class=PageRoute, include_in_schema=False)

ROWS_SHOWN = 50
FIELDS_SHOWN = 100
DEVICES_SHOWN = 10
ALERTS_READ = 500

Row = dict[str, Any]


@router.get("")
def show_drift(
    request: Request,
    connection: Reading,
    model: Name = None,
    field: Name = None,
    site: Name = None,
    state: Annotated[str, Query(pattern="^(all|drifting)$")] = "all",
    cursor: Annotated[str | None, Query(max_length=800)] = None,
) -> Response:
    """What drifts where, since when and how far; everything that filters is in the address."""
    query = {
        "model": model, "field": field, "site": site, "state": None if state == "all" else state,
    }  # fmt: skip
    only = state == "drifting"
    whole = Wanted(model or "", field or "", FLEET, only)
    fleet_rows, _ = list_courses(connection, whole, FIELDS_SHOWN)
    wanted = Wanted(model or "", field or "", site or None, only)
    site_rows, following = list_courses(connection, wanted, ROWS_SHOWN, cursor)
    rows = [*fleet_rows, *site_rows]
    link_alerts(connection, rows)
    context: dict[str, Any] = {
        "query": query,
        "fleet_rows": fleet_rows,
        "site_rows": site_rows,
        "following": following,
        "cursor": cursor,
        "furthest": furthest_devices(connection, model),
    }
    drawn = {
        "known_models": known_models(connection),
        "lines": {key_of(row): draw_row(row) for row in rows},
        "key_of": key_of,
    }
    api = with_query("/drift", model=model, field=field, site=site)
    return page(request, "drift.html", context, drawn=drawn, api=api)


def key_of(row: Row) -> tuple[str, ...]:
    """What makes a row one of its own."""
    return tuple(row[name] for name in ("model", "family", "field", "site"))


def draw_row(row: Row) -> Sparkline | None:
    """The course of a row's statistic with its limit."""
    return draw_sparkline(row["points"], STRONG)


def link_alerts(connection: Connection, rows: list[Row]) -> None:
    """Give each row that drifts its open alert: the place's own, or its worst device's."""
    c = alerts.c
    drifting = [row for row in rows if row["standing"] == "drifting"]
    subjects = {row["site"] for row in drifting} | {row["worst_device"] for row in drifting}
    found: dict[tuple[str, ...], int] = {}
    if drifting:
        query = select(c.id, c.scope, c.subject, c.model, c.family, c.field).where(
            c.subject.in_(subjects), c.ended_ms.is_(None), c.model.in_({r["model"] for r in rows})
        )
        for one in connection.execute(query.order_by(c.id).limit(ALERTS_READ)):
            kind = "device" if one.scope == "device" else "place"
            found[kind, one.subject, one.model, one.family, one.field] = one.id
    for row in rows:
        rest = (row["model"], row["family"], row["field"])
        own = found.get(("place", row["site"], *rest))
        row["alert"] = own or found.get(("device", row["worst_device"], *rest))
        row["alert_subject"] = row["site"] if own else row["worst_device"]


def furthest_devices(connection: Connection, model: str | None) -> list[Row]:
    """Devices whose last windows are furthest from training, whether or not that is news."""
    m = device_models.c
    query = (
        select(m.device, devices.c.site, m.model, m.active_version, m.drift, m.drift_feature)
        .join(devices, devices.c.device == m.device)
        .where(m.drift > 0, devices.c.revoked_ms.is_(None))
    )
    if model:
        query = query.where(m.model == model)
    rows = connection.execute(query.order_by(desc(m.drift), m.device).limit(DEVICES_SHOWN))
    return [dict(row) for row in rows.mappings()]
