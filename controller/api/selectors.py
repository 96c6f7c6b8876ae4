"""Routes of saved selectors, and what a selector means now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from controller import saved_selectors
from controller.api.common import Actor, Document, OfServices, Reading, items
from controller.api.json_body import JsonRoute

router = APIRouter(prefix="/selectors", tags=["selectors"], route_class=JsonRoute)

Sent = Annotated[dict[str, Any], Body()]


@router.get("")
def list_selectors(services: OfServices, connection: Reading) -> Document:
    """List saved selectors and static groups, with how many devices each means now."""
    return items(saved_selectors.list_saved(connection, saved_selectors.moment(services)))


@router.post("/preview")
def preview_selector(body: Sent, services: OfServices, connection: Reading) -> Document:
    """Which devices a selector means, which are offline, and which cannot take a release."""
    return saved_selectors.preview(connection, saved_selectors.moment(services), body)


@router.get("/{name}")
def read_selector(name: str, services: OfServices, connection: Reading) -> Document:
    """One saved selector."""
    return saved_selectors.get(connection, name, saved_selectors.moment(services))


@router.put("/{name}")
def save_selector(name: str, body: Sent, services: OfServices, actor: Actor) -> Document:
    """Save a selector under a name; `static` keeps the devices that match now."""
    return saved_selectors.save(services, name, body, actor)


@router.delete("/{name}")
def remove_selector(name: str, services: OfServices, actor: Actor) -> Document:
    """Forget a saved selector that no other speaks of."""
    saved_selectors.remove(services, name, actor)
    return {"name": name, "removed": True}
