"""What the API refuses, each with the HTTP status that says whose fault it is."""

from __future__ import annotations

from http import HTTPStatus

from shoal.errors import InvalidInputError, ShoalError, UntrustedError


class NotFoundError(ShoalError):
    """No such thing."""

    code = "not-found"


class ConflictError(ShoalError):
    """It cannot be done in the state that things are in."""

    code = "conflict"


class UnavailableError(ShoalError):
    """A part of the controller that this needs is not there now."""

    code = "unavailable"


class ForbiddenError(ShoalError):
    """Known, or unknown, but not allowed."""

    code = "forbidden"


class UnauthenticatedError(ForbiddenError):
    """No token, or one that is not known."""

    code = "unauthenticated"


class TooManyError(ShoalError):
    """Asked too often."""

    code = "too-many-attempts"


_STATUS: dict[type[ShoalError], HTTPStatus] = {
    UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    TooManyError: HTTPStatus.TOO_MANY_REQUESTS,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    InvalidInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UntrustedError: HTTPStatus.UNPROCESSABLE_ENTITY,
}


def http_status(error: ShoalError) -> HTTPStatus:
    """The status of an error; what has none is our own fault."""
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR
