"""Who may do what: a bearer token, or what people without one may do.

Changes from a browser without a token must come from our own pages: the browser says so in
Sec-Fetch-Site, or in Origin.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import Request
from sqlalchemy import select

from controller import schema
from controller.config import ROLES
from controller.database import reading
from controller.errors import ForbiddenError, UnauthenticatedError
from controller.services import Services

TOKENS = "api-tokens"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def token_hash(token: str) -> str:
    """What is stored of a token. Tokens are 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def require(role: str) -> Callable[[Request], str]:
    """Return a dependency that gives the actor's name, or refuses."""

    def check(request: Request) -> str:
        services: Services = request.app.state.services
        actor, has = _identify(request, services)
        if ROLES.index(has) < ROLES.index(role):
            raise UnauthenticatedError(f"this needs the role {role}; send a bearer token")
        return actor

    return check


def _identify(request: Request, services: Services) -> tuple[str, str]:
    header = request.headers.get("authorization", "")
    if header:
        kind, _, token = header.partition(" ")
        if kind.lower() == "bearer" and (name := _known(services, token.strip())):
            return name, "operator"
        raise UnauthenticatedError("the bearer token is not known")
    if request.method not in SAFE_METHODS:
        _check_same_origin(request)
    return "anonymous", services.settings.web.anonymous


def _known(services: Services, token: str) -> str | None:
    with reading(services.engine) as connection:
        query = select(schema.settings.c.value).where(schema.settings.c.key == TOKENS)
        stored: dict[str, str] = connection.scalar(query) or {}
    wanted = token_hash(token)
    return next((name for one, name in stored.items() if hmac.compare_digest(one, wanted)), None)


def _check_same_origin(request: Request) -> None:
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site in ("same-origin", "none") or (site is None and origin is None):
        return
    if origin is not None and urlsplit(origin).netloc == request.headers.get("host"):
        return
    raise ForbiddenError("a change from another site's page is refused", code="cross-site")
