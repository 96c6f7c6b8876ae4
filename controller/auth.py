"""Who may do what: a bearer token, a browser's session, or what people without either may do.

`authorise` runs before every route and asks the table of roles (`controller.people.roles`).
Changes from a browser must come from our own pages: the browser says so in Sec-Fetch-Site, or in
Origin. A request with a session cookie is a browser's, so one that says neither is refused; forms
carry a token of their own besides (`controller.web.forms`).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request

from controller.database import reading
from controller.errors import ForbiddenError, UnauthenticatedError
from controller.people import sessions, tokens
from controller.people.person import ANONYMOUS, Person
from controller.people.roles import needed_for
from controller.services import Services

COOKIE = "shoal-session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def authorise(request: Request) -> None:
    """Dependency of every route: find out who asks, and refuse whose role is not enough."""
    try:
        needed = needed_for(request.scope["endpoint"])
    except LookupError:
        raise ForbiddenError(
            f"{request.method} {request.url.path}: no role is known to be enough", code="no-role"
        ) from None
    if needed is None:
        return
    person = identify(request)
    request.state.person = person
    if person.may(needed):
        return
    if person.principal:
        raise ForbiddenError(f"this needs the role {needed}; {person.name} has {person.role}")
    raise UnauthenticatedError(f"this needs the role {needed}; sign in or send a bearer token")


def person_of(request: Request) -> Person:
    """Dependency: who `authorise` found."""
    person: Person = request.state.person
    return person


def actor_of(request: Request) -> str:
    """Dependency: the name that the audit log shall have."""
    return person_of(request).name


def identify(request: Request) -> Person:
    """Who sent a request; raises when it claims to be somebody and is not."""
    services: Services = request.app.state.services
    header = request.headers.get("authorization", "")
    if header:
        kind, _, token = header.partition(" ")
        person = tokens.use(services.engine, token.strip(), services.now_ms())
        if kind.lower() == "bearer" and person is not None:
            return person
        raise UnauthenticatedError("the bearer token is not known, has expired or was revoked")
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
            return found
    return Person(ANONYMOUS, services.settings.web.anonymous)


def _check_same_origin(request: Request, services: Services, *, strict: bool) -> None:
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site in ("same-origin", "none") or (site is None and origin is None and not strict):
        return
    ours = {request.headers.get("host"), urlsplit(services.settings.web.public_url).netloc or None}
    if origin is not None and urlsplit(origin).netloc in ours:
        return
    raise ForbiddenError("a change from another site's page is refused", code="cross-site")
