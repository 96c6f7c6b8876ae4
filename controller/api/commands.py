"""Routes for one device: commands with their answers, and options."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body

from controller import commands, options
from controller.api.common import Actor, Document, Limit, OfServices, Reading, items
from controller.api.json_body import JsonRoute

router = APIRouter(tags=["devices"], route_class=JsonRoute)


@router.post("/devices/{device}/commands", status_code=201)
def create_command(
    device: str,
    services: OfServices,
    actor: Actor,
    body: Annotated[dict[str, Any], Body()],
) -> Document:
    """Ask a device: `kind` is log-tail, support-bundle, capture-range or replay."""
    return commands.create(services, actor, device, body)


@router.get("/devices/{device}/commands")
def list_commands(
    device: str, services: OfServices, connection: Reading, actor: Actor, limit: Limit = 100
) -> Document:
    """List commands to a device, newest first."""
    return items(commands.list_of_device(connection, device, services.now_ms(), limit))


@router.get("/devices/{device}/commands/{command}")
def read_command(
    device: str, command: str, services: OfServices, connection: Reading, actor: Actor
) -> Document:
    """One command and, once it is whole, its answer."""
    return commands.read(connection, device, command, services.now_ms())


@router.get("/devices/{device}/options")
def read_options(device: str, connection: Reading) -> Document:
    """Settings given from afar; null where the device's own hold."""
    return options.read(connection, device)


@router.patch("/devices/{device}/options")
def change_options(
    device: str,
    services: OfServices,
    actor: Actor,
    body: Annotated[dict[str, Any], Body()],
) -> Document:
    """Change settings; null gives one back to the device."""
    return options.change(services, actor, device, body)
