"""Turning documents into pages: the Jinja environment, its filters, and parts of pages.

A page's live parts are blocks of its template. `?part=<block>` gives that block alone, from the
same route and context, so what htmx swaps in is what the page showed first.
"""

from __future__ import annotations

import functools
import secrets
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from controller.auth import person_of
from controller.errors import NotFoundError
from controller.people.person import Person
from controller.people.roles import NONE, OPERATOR
from controller.services import Services
from controller.web import assets, forms, words
from controller.web.twin import document, twin_path, wants_json
from shoal import __version__

Context = dict[str, Any]

NAVIGATION = (  # name, path, key after g, and the least role that the link is for
    ("Fleet", "/", "f", NONE),
    ("Rollouts", "/rollouts", "r", NONE),
    ("Models", "/models", "m", NONE),
    ("Drift", "/drift", "d", NONE),
    ("Alerts", "/alerts", "a", NONE),
    ("Audit", "/audit", "u", OPERATOR),
)


@functools.cache
def environment() -> Environment:
    """The one environment; an unknown name in a template is an error, not an empty string."""
    made = Environment(
        loader=PackageLoader("controller.web"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= words.FILTERS
    made.globals |= {"navigation": NAVIGATION, "version": __version__, "with_query": with_query}
    return made


def with_query(path: str, **query: Any) -> str:
    """A path with those parts of a query that say something.

    >>> with_query("/", site="jfk", status=None)
    '/?site=jfk'
    """
    given = {key: value for key, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def services_of(request: Request) -> Services:
    """The services that `build_app` was given."""
    services: Services = request.app.state.services
    return services


def base_path(request: Request) -> str:
    """What a reverse proxy has put before every path; "" without one."""
    return services_of(request).settings.web.root_path.rstrip("/")


def page(
    request: Request,
    template: str,
    context: Context,
    *,
    drawn: Context | None = None,
    api: str = "",
    status: int = 200,
) -> Response:
    """A page, the part of it that `?part=` asks for, or its document as JSON (`twin`).

    `context` is what there is to say, `drawn` what only the template needs; `api` is the API's path
    of the same things.
    """
    base = base_path(request)
    path = request.url.path.removeprefix(base) or "/"
    api = f"{base}/api/v1{api}" if api else ""
    if status == 200 and wants_json(request):
        return document(context, path, api)
    person: Person = request.state.person
    token, fresh = _csrf(request, person)
    query = f"?{request.url.query}" if request.url.query else ""
    whole = context | (drawn or {}) | {
        "base": base,
        "path": path,
        "person": person,
        "csrf": token,
        "twin": f"{base}{twin_path(path)}{query}" if status == 200 else "",
        "api": api,
        "asset": lambda name: f"{base}{assets.url(name)}",
    }  # fmt: skip
    found = environment().get_template(template)
    part = request.query_params.get("part") if status == 200 else None
    if part is None:
        text = found.render(whole)
    elif part in found.blocks and part.startswith("live_"):
        text = "".join(found.blocks[part](found.new_context(whole)))
    else:
        raise NotFoundError(f"part {part[:40]!r}: this page has no such part")
    headers = {"cache-control": "private, no-cache", "vary": "accept"}
    response = HTMLResponse(text, status, headers=headers)
    if fresh:
        forms.set_cookie(request, response, forms.VISITOR, fresh)
    return response


def _csrf(request: Request, person: Person) -> tuple[str, str]:
    """The token of this visitor's forms, and the visitor's new secret where there was none."""
    secret = person.session or request.cookies.get(forms.VISITOR, "")
    fresh = "" if secret else secrets.token_urlsafe(32)
    return forms.csrf_token(services_of(request), secret or fresh), fresh


def redirect(request: Request, path: str) -> Response:
    """Go on to a page of ours after a form was handled."""
    return RedirectResponse(base_path(request) + path, 303)


Acting = Annotated[Person, Depends(person_of)]
"""Who asks, for routes that write it down."""
