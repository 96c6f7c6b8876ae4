"""Routes of enrolment: tokens for operators, and the one door for new devices."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from controller import enrolment
from controller.api.common import Actor, Document, OfServices, Reading, items
from controller.api.json_body import JsonRoute
from shoal.errors import InvalidInputError
from shoal.protocol.envelope import MAX_ENVELOPE_BYTES

router = APIRouter(tags=["enrolment"], route_class=JsonRoute)

MAC_HEADER = "x-shoal-answer-mac"


@router.post("/enrolment-tokens", status_code=201)
def create_token(
    services: OfServices,
    actor: Actor,
    device: Annotated[str | None, Body()] = None,
    site: Annotated[str | None, Body()] = None,
    labels: Annotated[dict[str, str] | None, Body()] = None,
    expires_seconds: Annotated[int | None, Body()] = None,
) -> Document:
    """Make a one-time token; its secret is shown only in this answer."""
    return enrolment.create_token(
        services,
        actor,
        device=device,
        site=site,
        labels=labels or {},
        expires_seconds=expires_seconds,
    )


@router.get("/enrolment-tokens")
def list_tokens(connection: Reading, actor: Actor) -> Document:
    """List tokens, without their secrets."""
    return items(enrolment.list_tokens(connection))


@router.post("/enrolments")
async def enrol(request: Request, services: OfServices) -> Response:
    """Make a device part of the fleet. No bearer token: the proof in the request is checked."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_ENVELOPE_BYTES:
            raise InvalidInputError(f"enrolment: more than {MAX_ENVELOPE_BYTES} bytes")
    wanted = enrolment.decode_request(bytes(body))
    sealed = await asyncio.to_thread(enrolment.enrol, services, wanted)
    await enrolment.update_accounts(services)
    return Response(sealed.body, media_type="application/json", headers={MAC_HEADER: sealed.mac})
