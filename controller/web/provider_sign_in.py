"""Signing in at an OpenID provider: there, and back with an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from controller.auth import COOKIE
from controller.database import writing
from controller.errors import NotFoundError
from controller.people import provided, sessions
from controller.people.begun import BEGUN_SECONDS, Begun, open_begun, seal_begun
from controller.people.person import Person
from controller.secret import derive
from controller.services import Services
from controller.web import forms
from controller.web.refusals import PageRoute
from controller.web.rendering import page, services_of
from controller.web.sign_in import local_path, show_form
from shoal.errors import ShoalError

if TYPE_CHECKING:  # it imports an HTTP client, which few controllers need
    from controller.people.provider import Provider

router = APIRouter(prefix="/sign-in/provider", route_class=PageRoute, include_in_schema=False)

BEGUN = "shoal-sign-in"


@router.get("")
async def begin(request: Request, next: str = "/") -> Response:  # noqa: A002 - the query's name
    """Send the browser to the provider."""
    services = services_of(request)
    try:
        provider = _provider(services)
        url, begun = await asyncio.to_thread(
            provider.begin, _redirect_uri(services), local_path(next), services.now_ms()
        )
    except ShoalError as error:
        return show_form(request, "/", error)
    response = RedirectResponse(url, status_code=303)
    # lax: the provider sends the browser back here, and its cookie has to come along
    sealed = seal_begun(begun, _key(services))
    forms.set_cookie(request, response, BEGUN, sealed, BEGUN_SECONDS, samesite="lax")
    return response


@router.get("/done")
async def finish(request: Request) -> Response:
    """Come back: check the answer and start a session."""
    services = services_of(request)
    try:
        begun = open_begun(request.cookies.get(BEGUN, ""), _key(services), services.now_ms())
        secret = await asyncio.to_thread(_sign_in, services, begun, request)
    except ShoalError as error:
        response = show_form(request, "/", error)
    else:
        # a page, not a redirect: the session's cookie is strict, and comes along only from us
        response = page(request, "sign_in_done.html", {"goal": begun.goal})
        forms.set_cookie(request, response, COOKIE, secret, sessions.SESSION_SECONDS)
    forms.set_cookie(request, response, BEGUN, "", 0, samesite="lax")
    return response


def _sign_in(services: Services, begun: Begun, request: Request) -> str:
    claims = _provider(services).finish(
        _redirect_uri(services),
        begun,
        dict(request.query_params),
    )
    address = request.client.host if request.client else ""
    person: Person = provided.sign_in(
        services.engine, services.settings.oidc, claims, services.now_ms(), address
    )
    with writing(services.engine) as connection:
        return sessions.start(connection, person, services.now_ms())


def _provider(services: Services) -> Provider:
    if services.provider is None:
        raise NotFoundError("sign in: this controller has no OpenID provider")
    return services.provider


def _redirect_uri(services: Services) -> str:
    return f"{services.public_url()}/sign-in/provider/done"


def _key(services: Services) -> bytes:
    return derive(services.broker_secret, "sign-in at a provider").encode()
