"""The page of settings: one's password; for operators, devices that wait; users and tokens."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from controller.api.common import OfServices
from controller.database import reading
from controller.errors import ForbiddenError, http_status
from controller.identity import admission
from controller.people import tokens, users
from controller.people.person import Person
from controller.people.roles import ADMIN, GRANTED_ROLES, OPERATOR
from controller.repository.status import describe_status
from controller.services import Services
from controller.web.forms import delete_session_cookie, read_form
from controller.web.refusals import PageRoute
from controller.web.rendering import Acting, page, redirect
from shoal.errors import InvalidInputError, ShoalError
from shoal.signing import key_id

router = APIRouter(prefix="/settings", route_class=PageRoute, include_in_schema=False)

DAY_SECONDS = 86400


@router.get("")
def show_settings(request: Request, services: OfServices, person: Acting) -> Response:
    """Who one is; for admins, who there is."""
    return _page(request, services, person)


@router.post("/password")
async def change_own_password(request: Request, services: OfServices, person: Acting) -> Response:
    """Change one's own password, which signs one out everywhere."""
    fields = await read_form(request)
    if not person.is_user:
        raise ForbiddenError(f"{person.name} has no password to change")
    address = request.client.host if request.client else ""
    try:
        await asyncio.to_thread(_change_own, services, person.name, fields, address)
    except ShoalError as error:
        return await asyncio.to_thread(_page, request, services, person, error)
    response = redirect(request, "/sign-in")
    delete_session_cookie(request, response)
    return response


@router.post("/admissions/{fingerprint}/{verb}")
async def decide_admission(
    request: Request,
    fingerprint: str,
    verb: Literal["approve", "reject"],
    services: OfServices,
    person: Acting,
) -> Response:
    """Let a waiting device in, or refuse it."""
    await read_form(request)

    def decide() -> None:
        admission.decide(services, person.name, fingerprint, approve=verb == "approve", labels={})

    return await _done(request, services, person, decide)


@router.post("/users")
async def add_user(request: Request, services: OfServices, person: Acting) -> Response:
    """Add a user."""
    fields = await read_form(request)
    wanted = [fields.get(key, "") for key in ("name", "role", "password")]
    add = (users.add, services.engine, person.name, services.now_ms(), *wanted)
    return await _done(request, services, person, *add)


@router.post("/users/{user}/{what}")
async def change_user(
    request: Request, user: str, what: str, services: OfServices, person: Acting
) -> Response:
    """`what` is role, password, disable or enable."""
    fields = await read_form(request)
    changes: dict[str, dict[str, Any]] = {
        "role": {"role": fields.get("role", "")},
        "password": {"password": fields.get("password", "")},
        "disable": {"disabled": True},
        "enable": {"disabled": False},
    }

    def change() -> None:
        users.change(services.engine, person.name, services.now_ms(), user, **changes.get(what, {}))

    return await _done(request, services, person, change)


@router.post("/tokens")
async def create_token(request: Request, services: OfServices, person: Acting) -> Response:
    """Make a token, and show it once."""
    fields = await read_form(request)
    try:
        made = await asyncio.to_thread(_create_token, services, person, fields)
    except ShoalError as error:
        return await asyncio.to_thread(_page, request, services, person, error)
    return await asyncio.to_thread(_page, request, services, person, None, made)


@router.post("/tokens/{token}/revoke")
async def revoke_token(
    request: Request, token: str, services: OfServices, person: Acting
) -> Response:
    """End a token."""
    await read_form(request)
    revoke = (tokens.revoke, services.engine, services.now_ms(), person.name, token)
    return await _done(request, services, person, *revoke)


async def _done(
    request: Request, services: Services, person: Person, work: Any, *arguments: Any
) -> Response:
    try:
        await asyncio.to_thread(work, *arguments)
    except ShoalError as error:
        return await asyncio.to_thread(_page, request, services, person, error)
    return redirect(request, "/settings")


def _change_own(services: Services, name: str, fields: dict[str, str], address: str) -> None:
    """With the old password again: a session left open must not be enough."""
    engine, now_ms = services.engine, services.now_ms()
    users.check_password(engine, now_ms, name, fields.get("old", ""), address)
    users.change(engine, name, now_ms, name, password=fields.get("password", ""))


def _create_token(services: Services, person: Person, fields: dict[str, str]) -> dict[str, Any]:
    days = fields.get("days", "")
    if not (days.isascii() and days.isdigit() and len(days) <= 5):
        raise InvalidInputError(f"days: expected a whole number, got {days[:40]!r}")
    return tokens.create(
        services.engine,
        services.now_ms(),
        person,
        fields.get("name", ""),
        fields.get("role", ""),
        int(days) * DAY_SECONDS,
    )


def _page(
    request: Request,
    services: Services,
    person: Person,
    error: ShoalError | None = None,
    made: dict[str, Any] | None = None,
) -> Response:
    with reading(services.engine) as connection:
        may, now_ms = person.may(ADMIN), services.now_ms()
        lets_in = person.may(OPERATOR)
        context = {
            "waiting": admission.list_waiting(connection, now_ms) if lets_in else None,
            "fingerprint": key_id(services.director.public_key),
            "roles": GRANTED_ROLES,
            "users": users.list_users(connection) if may else None,
            "tokens": tokens.list_tokens(connection) if may else None,
            "made": made,
            "now_ms": now_ms,
            "trust": describe_status(connection, services.keyring, datetime.now(UTC)),
            "problem": error.sentence if error else "",
        }
    status = http_status(error) if error else 200
    return page(request, "settings.html", context, status=status)
