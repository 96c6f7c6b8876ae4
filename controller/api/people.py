"""Routes of people: users, and API tokens for people and programs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from controller.api.common import Actor, Asking, Document, OfServices, Reading, items
from controller.api.json_body import JsonRoute
from controller.people import tokens, users

router = APIRouter(tags=["people"], route_class=JsonRoute)

Role = Annotated[str, Body(max_length=40)]
NewName = Annotated[str, Body(max_length=120)]


@router.get("/users")
def list_users(connection: Reading) -> Document:
    """List users by name."""
    return items(users.list_users(connection))


@router.post("/users", status_code=201)
def add_user(
    services: OfServices,
    actor: Actor,
    name: NewName,
    role: Role,
    password: Annotated[str, Body()],
) -> Document:
    """Add a user: `role` is viewer, operator, releaser or admin."""
    return users.add(services.engine, actor, services.now_ms(), name, role, password)


@router.patch("/users/{user}")
def change_user(
    user: str,
    services: OfServices,
    actor: Actor,
    role: Annotated[str | None, Body(max_length=40)] = None,
    disabled: Annotated[bool | None, Body()] = None,
    password: Annotated[str | None, Body()] = None,
) -> Document:
    """Change role, password or whether disabled; a new password signs out everywhere."""
    return users.change(
        services.engine,
        actor,
        services.now_ms(),
        user,
        role=role,
        disabled=disabled,
        password=password,
    )


@router.get("/api-tokens")
def list_api_tokens(connection: Reading) -> Document:
    """List tokens, without their secrets."""
    return items(tokens.list_tokens(connection))


@router.post("/api-tokens", status_code=201)
def create_api_token(
    services: OfServices,
    person: Asking,
    name: NewName,
    role: Role = "operator",
    expires_seconds: Annotated[int | None, Body()] = None,
) -> Document:
    """Make a token; its text is shown only in this answer."""
    return tokens.create(services.engine, services.now_ms(), person, name, role, expires_seconds)


@router.post("/api-tokens/{token}/revoke")
def revoke_api_token(token: str, services: OfServices, actor: Actor) -> Document:
    """End a token at once."""
    return tokens.revoke(services.engine, services.now_ms(), actor, token)
