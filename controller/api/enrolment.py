"""Routes of enrolment: what operators say about new devices, and the two doors for devices."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Body, Request, Response

from controller import enrolment
from controller.api.common import Actor, Document, OfServices, Reading, items
from controller.api.json_body import JsonRoute
from controller.identity import admission, renewal
from shoal.errors import InvalidInputError, ShoalError
from shoal.protocol.envelope import MAX_ENVELOPE_BYTES
from shoal.protocol.identity import Waiting

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
    """Make a device part of the fleet. No bearer token: the proof in the request is checked.

    202 for a device without a token that waits for an operator.
    """
    wanted = enrolment.decode_request(await _body(request))
    address = request.client.host if request.client else ""
    found = await asyncio.to_thread(enrolment.enrol, services, wanted, address)
    if isinstance(found, Waiting):
        return Response(msgspec.json.encode(found), 202, media_type="application/json")
    await enrolment.update_accounts(services)
    if found.came_back:
        await enrolment.cut_off(services, found.device)
    return Response(found.body, media_type="application/json", headers={MAC_HEADER: found.mac})


@router.post("/renewals")
async def renew(request: Request, services: OfServices) -> Response:
    """Give a device its next certificate. No bearer token: its key signs the request."""
    body = await _body(request)
    address = request.client.host if request.client else ""
    try:
        sealed = await asyncio.to_thread(renewal.renew, services, body)
    except ShoalError as error:
        enrolment.slow_down(services, address, error)
        raise
    return Response(sealed, media_type="application/json")


@router.get("/admissions")
def list_admissions(services: OfServices, connection: Reading, actor: Actor) -> Document:
    """Devices without a token: who waits for an operator, and who was announced."""
    return items(admission.list_waiting(connection, services.now_ms()))


@router.post("/admissions", status_code=201)
def preauthorise(
    services: OfServices,
    actor: Actor,
    public_key: Annotated[str, Body()],
    device: Annotated[str, Body()],
    site: Annotated[str | None, Body()] = None,
    labels: Annotated[dict[str, str] | None, Body()] = None,
) -> Document:
    """Announce a device by its public key: it comes in without a token, once."""
    enrolment.check_labels(labels or {})
    key = admission.read_key(public_key)
    return admission.preauthorise(
        services, actor, key, device=device, site=site, labels=labels or {}
    )


@router.post("/admissions/{wanted}/{verb}")
def decide(
    wanted: str,
    verb: Literal["approve", "reject"],
    services: OfServices,
    actor: Actor,
    labels: Annotated[dict[str, str] | None, Body(embed=True)] = None,
) -> Document:
    """Let a waiting device in, or refuse it, by name or by the start of its fingerprint."""
    enrolment.check_labels(labels or {})
    return admission.decide(services, actor, wanted, approve=verb == "approve", labels=labels or {})


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_ENVELOPE_BYTES:
            raise InvalidInputError(f"enrolment: more than {MAX_ENVELOPE_BYTES} bytes")
    return bytes(body)
