"""Routes of the TUF repository: what devices follow, and what signers read and send."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from controller.api.common import Asking, Document, OfServices, Reading
from controller.repository import store
from controller.repository.publish import bin_of, publish, read_base
from controller.repository.status import describe_status
from shoal.errors import InvalidInputError
from shoal.package import sha256
from shoal.protocol.targets import parse_release_path
from shoal.trust.proposal import MAX_PROPOSAL_BYTES, decode_proposal, encode_base
from shoal.trust.roles import TIMESTAMP

router = APIRouter(tags=["trust"])
repository = APIRouter(prefix="/repository", tags=["repository"])

_ASK_AGAIN = {"cache-control": "no-cache"}
_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}


@repository.get("/metadata/{name}")
def fetch_metadata(name: str, request: Request, connection: Reading) -> Response:
    """TUF metadata. Open to all: devices trust signatures, not us."""
    body = store.named_body(connection, name)
    if body is None:  # the next root is asked for at every refresh and may come at any time
        return Response(status_code=404, headers=_ASK_AGAIN)
    tag = f'"{sha256(body)}"'
    headers = (_ASK_AGAIN if name == f"{TIMESTAMP}.json" else _FOR_EVER) | {"etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


@router.get("/trust")
def read_trust(services: OfServices, connection: Reading) -> Document:
    """Roles, keys, thresholds, versions, ends, and warnings."""
    return describe_status(connection, services.keyring, datetime.now(UTC))


@router.get("/trust/metadata")
def read_trust_metadata(
    services: OfServices,
    connection: Reading,
    target: Annotated[list[str] | None, Query(max_length=1000)] = None,
) -> Response:
    """What is published, signed: all of it, or only what the releases `target` belong to."""
    bins = None
    if target is not None:
        paths = [path for path in target if path]
        for path in paths:
            parse_release_path(path)
        bins = {name for path in paths if (name := bin_of(connection, path))}
    body = encode_base(read_base(services, connection, bins))
    return Response(body, media_type="application/json")


@router.post("/trust")
async def publish_trust(request: Request, services: OfServices, person: Asking) -> Document:
    """Publish a proposal (the body) that enough keys have signed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_PROPOSAL_BYTES:
            raise InvalidInputError(
                f"proposal: more than {MAX_PROPOSAL_BYTES} bytes", code="too-large"
            )
    return await asyncio.to_thread(lambda: publish(services, decode_proposal(bytes(body)), person))
