"""Every page as JSON: `.json` behind the path of its address, or `Accept: application/json`.

What a page shows is one document; the template draws it, this gives it as it is. Programs that
want what is promised to stay use the API; each document names its place there.

>>> twin_path("/"), twin_path("/devices/gw-1")
('/.json', '/devices/gw-1.json')
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

SUFFIX = ".json"
NOT_PAGES = ("/api/", "/repository/", "/static/")
"""Where paths are what they say."""
_WANTED = "as_json"


def twin_path(path: str) -> str:
    """Where the twin of a page is."""
    return path + SUFFIX


def wants_json(request: Request) -> bool:
    """Whether a program asks: by the path, or by accepting JSON and no page."""
    if getattr(request.state, _WANTED, False):
        return True
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted and "text/html" not in accepted


def document(content: dict[str, Any], path: str, api: str) -> Response:
    """A page's document; times and records become what JSON has for them."""
    whole = {"page": path, "api": api or None, **content}
    headers = {"cache-control": "private, no-cache", "vary": "accept"}
    return Response(msgspec.json.encode(whole), media_type="application/json", headers=headers)


class Twins:
    """Takes `.json` off a page's path, and notes that JSON is wanted."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            path: str = scope["path"]
            below = path.removeprefix(scope.get("root_path", ""))
            if below.endswith(SUFFIX) and not below.startswith(NOT_PAGES):
                state = {**scope.get("state", {}), _WANTED: True}
                scope = {**scope, "path": path[: -len(SUFFIX)], "state": state}
        await self.app(scope, receive, send)
