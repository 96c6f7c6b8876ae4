"""The fleet page: counters, the map, rollouts under way, and the table of devices."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, desc, select

from controller import fleet
from controller.api.common import Name, OfServices, Reading, SelectorText
from controller.overview import FleetView, SiteView
from controller.rollouts.service import get_rollout
from controller.rollouts.states import ACTIVE_ROLLOUT
from controller.schema import releases, rollouts
from controller.services import Services
from controller.web import tiles
from controller.web.refusals import PageRoute
from controller.web.rendering import page, with_query
from controller.web.twin import wants_json
from shoal.errors import InvalidInputError

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PAGE_ROWS = 50
FINISHED_SHOWN_MS = 10 * 60 * 1000
ROLLOUTS_SHOWN = 5


@router.get("/")
def show_fleet(
    request: Request,
    services: OfServices,
    connection: Reading,
    site: Name = None,
    status: Name = None,
    model: Name = None,
    version: Name = None,
    q: SelectorText = None,
    cursor: Name = None,
) -> Response:
    """The fleet, with the table filtered by what the address says."""
    filters = {"site": site, "status": status, "model": model, "version": version, "q": q}
    part = request.query_params.get("part", "")
    context: dict[str, Any] = {"filters": filters, "cursor": cursor, "statuses": fleet.STATUSES}
    drawn: dict[str, Any] = {}
    if part in ("", "live_counters", "live_map"):
        view = services.overview.read()
        context |= worst_first(view)
        if not wants_json(request):
            drawn = {"fleet": view, "map": site_map(view)}
    if part in ("", "live_rollouts"):
        context["rollouts"] = recent_rollouts(connection, services.now_ms())
    if part in ("", "live_devices"):
        context |= _devices(services, connection, filters, cursor)
    if part == "":
        context["known_models"] = known_models(connection)
    api = with_query("/devices", **filters, cursor=cursor)
    return page(request, "fleet.html", context, drawn=drawn, api=api)


def _devices(
    services: Services, connection: Connection, filters: dict[str, str | None], cursor: str | None
) -> dict[str, Any]:
    """A page of the table, or what is wrong with the selector that was typed."""
    try:
        found, following = fleet.list_devices(
            connection,
            services.now_ms(),
            services.offline_after_ms,
            filters={name: value or None for name, value in filters.items()},
            limit=PAGE_ROWS,
            after=cursor,
        )
    except InvalidInputError as error:
        return {"devices": [], "following": None, "problem": error.sentence}
    return {"devices": found, "following": following, "problem": ""}


def worst_first(view: FleetView) -> dict[str, Any]:
    """Counters in all and at each site, the sites in the order of the map. Pure."""
    sites = [
        {"site": one.site, "trouble": one.trouble, "counters": one.counters} for one in view.sites
    ]
    return {"counters": view.counters, "total": view.total, "sites": sites}


def site_map(view: FleetView) -> dict[str, Any]:
    """How to draw the map, by the size of the fleet. Pure."""
    shown = view.sites[: tiles.SITES_MOST]
    kind = "pictures"
    if view.total <= tiles.LINKED_MOST:
        kind = "named" if view.total <= tiles.NAMED_MOST else "linked"
    columns = tiles.columns_for(max((len(one.devices) for one in shown), default=1))
    cell = tiles.cell_for(view.total)
    return {
        "kind": kind,
        "sites": [(one, _picture(one, columns, cell) if kind == "pictures" else None)
                  for one in shown],
        "more": len(view.sites) - len(shown),
        "dense": view.total > tiles.LARGE,
    }  # fmt: skip


def _picture(site: SiteView, columns: int, cell: int) -> tiles.Picture:
    return tiles.draw([status for _, status in site.devices], columns, cell)


def recent_rollouts(connection: Connection, now_ms: int) -> list[dict[str, Any]]:
    """Rollouts under way, and those that ended in the last minutes."""
    c = rollouts.c
    recent = c.state.in_(ACTIVE_ROLLOUT) | (c.finished_ms > now_ms - FINISHED_SHOWN_MS)
    query = select(c.rollout).where(recent).order_by(desc(c.created_ms), desc(c.rollout))
    names = list(connection.scalars(query.limit(ROLLOUTS_SHOWN)))
    found = [get_rollout(connection, name) for name in names]
    active = [one for one in found if one["state"] in ACTIVE_ROLLOUT]
    return active or found[:1]


def known_models(connection: Connection) -> list[str]:
    """Names of all models, for the filter."""
    return list(connection.scalars(select(releases.c.model).distinct().order_by(releases.c.model)))
