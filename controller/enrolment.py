"""Enrolment: one-time tokens, and devices that prove they hold one.

Checks are in an order that tells a stranger nothing: until the proof holds, every refusal is the
same sentence.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, desc, insert, select, update

from controller import audit
from controller.broker import DIRECTOR_ACCOUNT, INGEST_ACCOUNT
from controller.database import reading, writing
from controller.errors import ConflictError, ForbiddenError, UnavailableError
from controller.ingest.write import upsert
from controller.repository import store
from controller.schema import devices, enrolment_tokens
from controller.services import Services, release_keys
from shoal.errors import InvalidInputError
from shoal.ids import is_name
from shoal.protocol.desired import EnrolmentAnswer, EnrolmentRequest
from shoal.protocol.envelope import ENROLMENT_TYPE, MAX_ENVELOPE_BYTES, encode_envelope
from shoal.signing import seal
from shoal.trust.roles import ROOT

Document = dict[str, Any]

DEFAULT_EXPIRY_SECONDS = 24 * 3600
MAX_EXPIRY_SECONDS = 365 * 86400
SECRET_BYTES = 24
MAX_LABELS = 32
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,120}\Z")


@dataclass(frozen=True, slots=True)
class Sealed:
    """An answer for a device, and the proof that it comes from who made the token."""

    body: bytes
    mac: str
    device: str


def create_token(
    services: Services,
    actor: str,
    *,
    device: str | None,
    site: str | None,
    labels: dict[str, str],
    expires_seconds: int | None,
) -> Document:
    """Make a token; its secret is told only here."""
    for what, name in (("device", device), ("site", site)):
        if name is not None and not is_name(name):
            raise InvalidInputError(f"{what} {name[:80]!r}: expected a-z, 0-9 and '-'")
    _check_labels(labels)
    seconds = DEFAULT_EXPIRY_SECONDS if expires_seconds is None else expires_seconds
    if not 1 <= seconds <= MAX_EXPIRY_SECONDS:
        raise InvalidInputError(f"expires_seconds: {seconds} is not between 1 and a year")
    token_id, secret = f"t-{os.urandom(6).hex()}", os.urandom(SECRET_BYTES)
    now_ms = services.now_ms()
    row = {
        "token_id": token_id,
        "device": device,
        "site": site,
        "labels": labels,
        "created_ms": now_ms,
        "expires_ms": now_ms + seconds * 1000,
    }
    with writing(services.engine) as connection:
        connection.execute(insert(enrolment_tokens).values(**row, secret=secret))
        data = {"device": device, "site": site, "expires_seconds": seconds}
        audit.record(connection, now_ms, actor, "token.create", f"token {token_id}", data)
    text = urlsafe_b64encode(secret).decode().rstrip("=")
    return row | {"token": f"{token_id}.{text}", "used_by": None, "used_ms": None}


def _check_labels(labels: dict[str, str]) -> None:
    """Labels are what a selector can name."""
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(f"labels: {len(labels)}, at most {MAX_LABELS}")
    for name, value in labels.items():
        if not (_LABEL.match(name) and len(name) <= 63 and _LABEL.match(value)):
            raise InvalidInputError(
                f"label {name[:63]!r}={value[:80]!r}: expected letters, digits, '_', '.' and '-', "
                "a name of 1 to 63 and a value of 1 to 120"
            )


def list_tokens(connection: Connection) -> list[Document]:
    """All tokens, newest first, without their secrets."""
    columns = [column for column in enrolment_tokens.c if column.name != "secret"]
    query = select(*columns).order_by(desc(enrolment_tokens.c.created_ms)).limit(1000)
    return [dict(row) for row in connection.execute(query).mappings()]


def decode_request(body: bytes) -> EnrolmentRequest:
    """Decode what a device sent, or raise `InvalidInputError`."""
    if len(body) > MAX_ENVELOPE_BYTES:
        raise InvalidInputError(f"enrolment: {len(body)} bytes, at most {MAX_ENVELOPE_BYTES}")
    try:
        return msgspec.json.decode(body, type=EnrolmentRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"enrolment: {error}", code="invalid-enrolment") from error


def enrol(services: Services, request: EnrolmentRequest) -> Sealed:
    """Make the device part of the fleet and seal its answer; the broker's accounts come after."""
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        keys = release_keys(connection)
        if not keys:
            raise UnavailableError(
                "enrolment: the controller trusts no release key yet", code="no-release-key"
            )
        root = store.current_body(connection, ROOT) or b""
        token, secret = _check_token(connection, request, now_ms)
        _check_device(connection, request, token)
        _store(connection, request, token, now_ms)
    answer = EnrolmentAnswer(
        device=request.device,
        site=request.site,
        director_keys=[services.director.public_key],
        release_keys=keys,
        release_threshold=services.settings.release_threshold,
        broker_host=services.broker_host(),
        broker_port=services.broker_port(),
        broker_username=request.device,
        broker_password=services.device_password(request.device, now_ms),
        repository_url=f"{services.public_url()}/repository",
        root=root,
    )
    envelope = seal(msgspec.json.encode(answer), ENROLMENT_TYPE, services.director)
    mac = hmac.new(secret, envelope.payload, hashlib.sha256).hexdigest()
    return Sealed(encode_envelope(envelope), mac, request.device)


async def update_accounts(services: Services) -> None:
    """Let exactly the enrolled devices and our own processes log in to the broker."""
    if services.broker is not None:
        await services.broker.set_accounts(*accounts(services))


def accounts(services: Services) -> tuple[dict[str, str], dict[str, str]]:
    """Passwords of all devices, and of our own accounts."""
    with reading(services.engine) as connection:
        query = select(devices.c.device, devices.c.enrolled_ms).where(
            devices.c.revoked_ms.is_(None)
        )
        rows = connection.execute(query).all()
    own = (INGEST_ACCOUNT, DIRECTOR_ACCOUNT)
    return (
        {row.device: services.device_password(row.device, row.enrolled_ms) for row in rows},
        {name: services.account_password(name) for name in own},
    )


def revoke(services: Services, device: str, actor: str) -> None:
    """Take a device out of the fleet; its account goes with the next `update_accounts`."""
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        here = (devices.c.device == device) & devices.c.revoked_ms.is_(None)
        changed = connection.execute(
            update(devices).where(here).values(revoked_ms=now_ms, online=False)
        )
        if not changed.rowcount:
            raise ConflictError(f"device {device[:80]!r}: not enrolled, or revoked before")
        audit.record(connection, now_ms, actor, "device.revoke", f"device {device}")


def _check_token(
    connection: Connection, request: EnrolmentRequest, now_ms: int
) -> tuple[RowMapping, bytes]:
    table = enrolment_tokens
    query = select(table).where(table.c.token_id == request.token_id)
    row = connection.execute(query).mappings().first()
    secret: bytes = (row["secret"] if row else None) or b"\0" * SECRET_BYTES
    signed = request.device.encode() + b"|" + request.public_key
    proof = hmac.new(secret, signed, hashlib.sha256).digest()
    holds = hmac.compare_digest(proof, request.proof)
    if row is None or row["secret"] is None or not holds or row["expires_ms"] <= now_ms:
        raise ForbiddenError(
            "enrolment: the token is not known, used, expired, or its proof does not hold",
            code="bad-token",
        )
    for what, bound, said in (
        ("device", row["device"], request.device),
        ("site", row["site"], request.site),
    ):
        if bound is not None and bound != said:
            raise ForbiddenError(
                f"enrolment: this token is for {what} {bound}, not {said}", code="token-bound"
            )
    return row, secret


def _check_device(connection: Connection, request: EnrolmentRequest, token: RowMapping) -> None:
    """A device that is enrolled may come back only with a token made for it by name."""
    if len(request.public_key) != 32:
        raise InvalidInputError(f"enrolment: a key of {len(request.public_key)} bytes, expected 32")
    query = select(devices.c.revoked_ms).where(devices.c.device == request.device)
    row = connection.execute(query).first()
    if row is not None and row.revoked_ms is None and token["device"] is None:
        raise ConflictError(
            f"device {request.device}: is enrolled; to enrol it again, make a token for its name",
            code="already-enrolled",
        )


def _store(
    connection: Connection, request: EnrolmentRequest, token: RowMapping, now_ms: int
) -> None:
    values = {
        "site": request.site,
        "profile": request.profile,
        "labels": token["labels"],
        "facts": request.facts,
        "public_key": request.public_key,
        "enrolled_ms": now_ms,
        "revoked_ms": None,
        "online": False,
        "status": "unknown",
    }
    upsert(connection, devices, {"device": request.device}, values)
    used = {"secret": None, "used_ms": now_ms, "used_by": request.device}
    here = enrolment_tokens.c.token_id == request.token_id
    connection.execute(update(enrolment_tokens).where(here).values(**used))
    subject = f"device {request.device}"
    data = {"site": request.site, "profile": request.profile, "token": request.token_id}
    audit.record(connection, now_ms, f"device {request.device}", "device.enrol", subject, data)
