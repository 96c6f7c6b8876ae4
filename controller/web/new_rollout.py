"""The form that plans a rollout: what it would do first, then a button that starts it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, desc, select

from controller.api.common import OfServices, Reading
from controller.rollouts import drawing, service
from controller.rollouts.values import Specification, parse_specification
from controller.saved_selectors import moment
from controller.schema import published_releases, releases, selectors
from controller.services import Services
from controller.web.forms import read_form
from controller.web.refusals import PageRoute
from controller.web.rendering import Acting, page, redirect
from shoal.errors import InvalidInputError, ShoalError
from shoal.waves import parse_waves

router = APIRouter(prefix="/rollouts/new", route_class=PageRoute, include_in_schema=False)

RELEASES_SHOWN = 100
DEFAULTS = {
    "release": "",
    "selector": "*",
    "waves": "1, 25%, 100%",
    "soak_seconds": "600",
    "on_failure": "rollback",
    "expect": "",
}


@router.get("")
def show_form(request: Request, services: OfServices, connection: Reading) -> Response:
    """The form, and what it would do once a release is chosen."""
    query = request.query_params
    fields = {name: query.get(name, default) for name, default in DEFAULTS.items()}
    return _page(request, services, connection, fields)


@router.post("")
async def create(
    request: Request, services: OfServices, connection: Reading, person: Acting
) -> Response:
    """Create the rollout and start it."""
    fields = DEFAULTS | await read_form(request)
    try:
        wanted = read_specification(fields)
        document = await asyncio.to_thread(service.create, services, wanted, person.name)
    except ShoalError as error:
        return _page(request, services, connection, fields, problem=error.sentence, status=422)
    services.rollouts_changed.ring()
    return redirect(request, f"/rollouts/{document['rollout']}")


def read_specification(fields: Mapping[str, str]) -> Specification:
    """The form's fields as a specification, or raise naming the wrong one. Pure."""
    model, _, version = fields["release"].partition(" ")
    if not version:
        raise InvalidInputError("release: choose one")
    words = [word.strip() for word in fields["waves"].split(",") if word.strip()]
    if not words:
        raise InvalidInputError("waves: expected counts or shares, such as 1, 25%, 100%")
    try:
        soak = float(fields["soak_seconds"])
    except ValueError:
        raise InvalidInputError(
            f"soak: expected seconds, got {fields['soak_seconds'][:40]!r}"
        ) from None
    expect = fields.get("expect", "").strip()
    if expect and not (expect.isascii() and expect.isdecimal() and len(expect) < 10):
        raise InvalidInputError(f"expect: expected a number of devices, got {expect[:40]!r}")
    return parse_specification(
        {
            "model": model,
            "version": version,
            "selector": fields["selector"].strip(),
            "waves": parse_waves(words),
            "soak_seconds": soak,
            "on_failure": fields["on_failure"],
            "expect": int(expect) if expect else None,
        }
    )


def _page(
    request: Request,
    services: Services,
    connection: Connection,
    fields: Mapping[str, str],
    problem: str = "",
    status: int = 200,
) -> Response:
    preview: dict[str, Any] | None = None
    if fields["release"] and not problem:
        try:
            preview = drawing.preview(connection, read_specification(fields), moment(services))
        except ShoalError as error:
            problem = error.sentence
    context = {
        "fields": fields,
        "releases": newest_releases(connection),
        "preview": preview,
        "groups": saved_names(connection),
        "problem": problem,
    }
    return page(request, "new_rollout.html", context, status=status)


def saved_names(connection: Connection) -> list[str]:
    """Saved selectors to choose from."""
    return list(connection.scalars(select(selectors.c.name).order_by(selectors.c.name)))


def newest_releases(connection: Connection) -> list[str]:
    """Releases that can be assigned, as "model version", the newest first."""
    c = releases.c
    p = published_releases.c
    same = (p.model == c.model) & (p.sequence == c.sequence) & p.withdrawn_ms.is_(None)
    query = select(c.model, c.version).join(published_releases, same)
    query = query.order_by(desc(c.published_ms), desc(c.sequence))
    rows = connection.execute(query.limit(RELEASES_SHOWN))
    return [f"{row.model} {row.version}" for row in rows]
