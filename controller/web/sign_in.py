"""Signing a browser in, with a password, an API token or a one-time link, and out."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from controller.auth import COOKIE
from controller.database import writing
from controller.errors import UnauthenticatedError, http_status
from controller.people import sessions, tokens, users
from controller.people.person import Person
from controller.services import Services
from controller.web import forms
from controller.web.refusals import PageRoute
from controller.web.rendering import page, redirect, services_of
from shoal.errors import ShoalError

router = APIRouter(prefix="/sign-in", route_class=PageRoute, include_in_schema=False)


@router.get("")
def show(request: Request, next: str = "/") -> Response:  # noqa: A002 - the query's name
    """Ask for name and password, or a token."""
    return show_form(request, local_path(next))


@router.post("")
async def sign_in(request: Request) -> Response:
    """Turn a password or a token into a session."""
    fields = await forms.read_form(request)
    goal = local_path(fields.get("next", "/"))
    address = request.client.host if request.client else ""
    try:
        person = await asyncio.to_thread(_check, services_of(request), fields, address)
        return await asyncio.to_thread(_start, request, person, goal)
    except ShoalError as error:
        return show_form(request, goal, error)


@router.post("/out")
async def sign_out(request: Request) -> Response:
    """End the session."""
    await forms.read_form(request)
    await asyncio.to_thread(_end, request)
    response = redirect(request, "/")
    forms.delete_session_cookie(request, response)
    return response


@router.get("/{link}")
def show_link(request: Request, link: str) -> Response:
    """Show the button of a one-time link. Looking does not use it up, so previews do no harm."""
    return page(request, "sign_in_link.html", {"link": link})


@router.post("/{link}")
async def use_link(request: Request, link: str) -> Response:
    """Use a link up and start a session."""
    await forms.read_form(request)
    return await asyncio.to_thread(_use, request, link)


def _use(request: Request, link: str) -> Response:
    services = services_of(request)
    with writing(services.engine) as connection:
        person = sessions.use_link(connection, link, services.now_ms())
    if person is None:  # asked out here: the link stays used up
        raise UnauthenticatedError("sign in: this link has been used or has expired")
    return _start(request, person, "/")


def _check(services: Services, fields: dict[str, str], address: str) -> Person:
    """Who the fields of the form are of, or raise."""
    engine, now_ms = services.engine, services.now_ms()
    if "token" not in fields:
        name, password = fields.get("name", "").strip(), fields.get("password", "")
        return users.check_password(engine, now_ms, name, password, address)
    person = tokens.use(engine, fields["token"].strip(), now_ms)
    if person is None:
        raise UnauthenticatedError("sign in: the token is not known, has expired or was revoked")
    return person


def _end(request: Request) -> None:
    with writing(services_of(request).engine) as connection:
        sessions.end(connection, request.state.person.session)


def _start(request: Request, person: Person, goal: str) -> Response:
    services = services_of(request)
    with writing(services.engine) as connection:
        secret = sessions.start(connection, person, services.now_ms())
    response = redirect(request, goal)
    forms.set_cookie(request, response, COOKIE, secret, sessions.SESSION_SECONDS)
    return response


def show_form(request: Request, goal: str, error: ShoalError | None = None) -> Response:
    """The page with the forms, and what went wrong before."""
    oidc = services_of(request).settings.oidc
    context = {
        "next": goal,
        "problem": error.sentence if error else "",
        "provider": oidc.name if oidc.issuer else "",
    }
    return page(request, "sign_in.html", context, status=http_status(error) if error else 200)


def local_path(path: str) -> str:
    """A path of this site; anything that could lead elsewhere becomes the first page.

    >>> local_path("/devices/gw-1"), local_path("//elsewhere.example"), local_path("https://elsewhere.example")
    ('/devices/gw-1', '/', '/')
    """
    parts = urlsplit(path)
    safe = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if safe and not parts.netloc and path.isprintable() else "/"
