"""Route of sign-in links: who has a token can open the dashboard without typing it."""

from __future__ import annotations

from fastapi import APIRouter

from controller.api.common import Asking, Document, OfServices
from controller.database import writing
from controller.errors import UnauthenticatedError
from controller.people import sessions

router = APIRouter(tags=["sessions"])


@router.post("/sign-in-links", status_code=201)
def create_sign_in_link(services: OfServices, person: Asking) -> Document:
    """Make a link that signs one browser in, once, as the holder of the token."""
    if not person.principal:
        raise UnauthenticatedError("a sign-in link needs a bearer token")
    with writing(services.engine) as connection:
        secret, expires_ms = sessions.create_link(connection, person, services.now_ms())
    return {"url": f"{services.public_url()}/sign-in/{secret}", "expires_ms": expires_ms}
