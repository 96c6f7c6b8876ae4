"""Counts every HTTP answer, by the route that gave it."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.metrics.process import UNMATCHED

API = "/api/v1"


class CountRequests:
    """Innermost middleware: the router writes the route into the scope it is handed.

    Time ends where the answer begins, since streams of events end when people leave. The counters
    are those of the application's services: a test may exchange them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, seconds = time.perf_counter(), 500, None

        async def watched(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - began
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            took = time.perf_counter() - began if seconds is None else seconds
            metrics = scope["app"].state.services.metrics
            metrics.observe_request(scope["method"], route_of(scope), status, took)


def route_of(scope: Scope) -> str:
    """The pattern that matched; FastAPI leaves out the prefix that a router was included with."""
    pattern: str | None = getattr(scope.get("route"), "path", None)
    if pattern is None:
        return UNMATCHED
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    below = path.startswith(f"{API}/") and not pattern.startswith(f"{API}/")
    return API + pattern if below else pattern
