"""Refusals as problem documents (RFC 9457), with a stable `code`."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from controller.errors import http_status
from shoal.errors import ShoalError

log = logging.getLogger("controller.api")

MEDIA_TYPE = "application/problem+json"


def problem(status: int, code: str, detail: str) -> JSONResponse:
    """One problem document."""
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Turn every error into a problem document."""

    @app.exception_handler(ShoalError)
    async def refused(request: Request, error: ShoalError) -> JSONResponse:
        return problem(http_status(error), error.code, error.sentence)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5]]
        return problem(422, "invalid-request", "; ".join(found))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, "http-error", f"{request.url.path}: {error.detail}")

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        detail = f"{request.url.path}: a defect of the controller; its log has more"
        return problem(500, "internal-error", detail)  # the server logs the trace

    @app.exception_handler(OperationalError)
    async def database(request: Request, error: OperationalError) -> JSONResponse:
        log.error("event=database-error path=%s error=%r", request.url.path, str(error.orig))
        return problem(503, "database-unavailable", "the database did not answer; try again")
