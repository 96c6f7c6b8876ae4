"""Errors as pages, for people; the API's problem documents stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from controller.api.problems import problem
from controller.errors import UnauthenticatedError, http_status
from controller.people.person import ANONYMOUS, Person
from controller.people.roles import NONE
from controller.web.rendering import base_path, page, redirect, with_query
from controller.web.twin import NOT_PAGES, wants_json
from shoal.errors import ShoalError


class PageRoute(APIRoute):
    """A route whose refusals are pages, and that sends people to sign in where that helps."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def with_pages(request: Request) -> Response:
            try:
                return await handle(request)
            except UnauthenticatedError as error:
                return _to_sign_in(request) or refusal(request, 401, error.sentence, error.code)
            except ShoalError as error:
                return refusal(request, http_status(error), error.sentence, error.code)
            except RequestValidationError as error:
                found = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()[:3])
                return refusal(request, 422, found, "invalid-request")

        return with_pages


def _to_sign_in(request: Request) -> Response | None:
    here = request.url.path.removeprefix(base_path(request)) or "/"
    if here.startswith("/sign-in") or "part" in request.query_params or wants_json(request):
        return None
    return redirect(request, with_query("/sign-in", next=here if request.method == "GET" else ""))


def refusal(request: Request, status: int, sentence: str, code: str) -> Response:
    """A page that says what was refused and why; a problem document for programs."""
    if wants_json(request):
        return problem(status, code, sentence)
    if not hasattr(request.state, "person"):
        request.state.person = Person(ANONYMOUS, NONE)
    return page(request, "refusal.html", {"status": status, "sentence": sentence}, status=status)


def install(app: FastAPI) -> None:
    """Give browsers a page where nothing is found."""
    as_problem: Any = app.exception_handlers[HTTPException]

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        here = request.url.path.removeprefix(base_path(request))
        wants_page = "text/html" in request.headers.get("accept", "")
        if wants_page and not here.startswith(NOT_PAGES):
            code = "not-found" if error.status_code == 404 else "http-error"
            return refusal(request, error.status_code, f"{here}: {error.detail}", code)
        answer: Response = await as_problem(request, error)
        return answer
