"""Forms: reading them, and knowing that one of our own pages sent them.

Every form carries a token derived from the session's secret, or from a random cookie where nobody
is signed in. Another site can neither read nor guess it, and the cookies are SameSite=Strict.
"""

from __future__ import annotations

import hmac
from typing import Literal
from urllib.parse import parse_qsl

from fastapi import Request, Response

from controller.auth import COOKIE
from controller.errors import ForbiddenError
from controller.secret import derive
from controller.services import Services
from shoal.errors import InvalidInputError

VISITOR = "shoal-visitor"
FIELD = "csrf"
MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 50


def csrf_token(services: Services, secret: str) -> str:
    """The token that belongs to a session's or a visitor's secret."""
    return derive(services.broker_secret, f"csrf|{secret}")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that one of our pages sent, or raise."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise InvalidInputError(f"form: more than {MAX_FORM_BYTES} bytes", code="too-large")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise InvalidInputError(f"form: {error}") from error
    _check(request, fields.pop(FIELD, ""))
    return fields


def _check(request: Request, token: str) -> None:
    secret = request.state.person.session or request.cookies.get(VISITOR, "")
    expected = csrf_token(request.app.state.services, secret)
    if not secret or not hmac.compare_digest(token.encode(), expected.encode()):
        raise ForbiddenError(
            "this form is not from a page of this session: go back, reload and send it again",
            code="csrf",
        )


def set_cookie(
    request: Request,
    response: Response,
    name: str,
    secret: str,
    seconds: int | None = None,
    *,
    samesite: Literal["strict", "lax"] = "strict",
) -> None:
    """Set a cookie that only we read and that no other site's page sends along."""
    settings = request.app.state.services.settings.web
    response.set_cookie(
        name,
        secret,
        max_age=seconds,
        path=settings.root_path.rstrip("/") or "/",
        secure=request.url.scheme == "https" or settings.public_url.startswith("https:"),
        httponly=True,
        samesite=samesite,
    )


def delete_session_cookie(request: Request, response: Response) -> None:
    """Take the session's cookie away from the browser."""
    set_cookie(request, response, COOKIE, "", 0)
