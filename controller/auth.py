"""Who may do what: a bearer token, a browser's session, or what people without either may do.

Changes from a browser must come from our own pages: the browser says so in Sec-Fetch-Site, or in
Origin. A request with a session cookie is a browser's, so one that says neither is refused; forms
carry a token of their own besides (`controller.web.forms`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request

from controller import sessions
from controller.config import ROLES
from controller.database import reading
from controller.errors import ForbiddenError, UnauthenticatedError
from controller.services import Services
from controller.sessions import TOKENS, token_hash

__all__ = ["COOKIE", "TOKENS", "Person", "identify", "require", "token_hash"]

COOKIE = "shoal-session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks."""

    name: str
    role: str
    token_hash: str = ""
    """Of the API token behind it; "" for anonymous people."""
    session: str = ""
    """The secret of the browser's session; "" without one."""

    def may(self, role: str) -> bool:
        """Whether this person has at least `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


def require(role: str) -> Callable[[Request], str]:
    """Return a dependency that gives the actor's name, or refuses."""

    def check(request: Request) -> str:
        person = identify(request)
        if not person.may(role):
            raise UnauthenticatedError(f"this needs the role {role}; send a bearer token")
        return person.name

    return check


def identify(request: Request) -> Person:
    """Who sent a request; raises when it claims to be somebody and is not."""
    services: Services = request.app.state.services
    header = request.headers.get("authorization", "")
    if header:
        kind, _, token = header.partition(" ")
        hashed = token_hash(token.strip())
        if kind.lower() == "bearer" and (name := _name_of(services, hashed)):
            return Person(name, "operator", hashed)
        raise UnauthenticatedError("the bearer token is not known")
    person = _from_cookie(request, services)
    if request.method not in SAFE_METHODS:
        _check_same_origin(request, services, strict=bool(person.session))
    return person


def _from_cookie(request: Request, services: Services) -> Person:
    """An ended session is no error: its browser is anonymous again."""
    if secret := request.cookies.get(COOKIE, ""):
        with reading(services.engine) as connection:
            found = sessions.find(connection, secret, services.now_ms())
        if found is not None:
            return Person(found.name, "operator", found.token_hash, secret)
    return Person("anonymous", services.settings.web.anonymous)


def _name_of(services: Services, hashed: str) -> str | None:
    with reading(services.engine) as connection:
        return sessions.token_name(connection, hashed)


def _check_same_origin(request: Request, services: Services, *, strict: bool) -> None:
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site in ("same-origin", "none") or (site is None and origin is None and not strict):
        return
    ours = {request.headers.get("host"), urlsplit(services.settings.web.public_url).netloc or None}
    if origin is not None and urlsplit(origin).netloc in ours:
        return
    raise ForbiddenError("a change from another site's page is refused", code="cross-site")
