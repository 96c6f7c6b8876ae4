"""Enrolment: one-time tokens, and devices that prove they hold one or are let in by an operator.

Checks are in an order that tells a stranger nothing: until the proof holds, every refusal is the
same sentence. What fails only reads the database, and is listened to only so often
(`identity.gate`).
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
from controller.errors import ConflictError, ForbiddenError, TooManyError, UnavailableError
from controller.identity import admission, certificates
from controller.identity.identities import broker_authorities
from controller.ingest.write import upsert
from controller.repository import store
from controller.schema import devices, enrolment_tokens
from controller.services import Services
from shoal.csr import read_request
from shoal.errors import InvalidInputError, ShoalError
from shoal.ids import is_name
from shoal.protocol.desired import EnrolmentAnswer, EnrolmentRequest
from shoal.protocol.envelope import ENROLMENT_TYPE, MAX_ENVELOPE_BYTES, encode_envelope
from shoal.protocol.identity import Waiting, proved_by_token
from shoal.signing import PublicKey, key_id, seal
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
    """Empty where there is no token."""
    device: str
    came_back: bool
    """It had a certificate before, which was taken back."""


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
    check_labels(labels)
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


def check_labels(labels: dict[str, str]) -> None:
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


def enrol(services: Services, request: EnrolmentRequest, address: str = "") -> Sealed | Waiting:
    """Make the device part of the fleet and seal its answer; the broker's accounts come after.

    One without a token waits until an operator lets it in.
    """
    key = read_request(request.csr)
    if request.token_id is None:
        slow_down(services, address)
        return _admit(services, request, key, address)
    try:
        return _let_in(services, request, key)
    except ShoalError as error:
        slow_down(services, address, error)
        raise


def _let_in(services: Services, request: EnrolmentRequest, key: PublicKey) -> Sealed:
    """By a token."""
    now_ms = services.now_ms()
    with reading(services.engine) as connection:  # what fails does not keep writers waiting
        _check_token(connection, request, now_ms)
    with writing(services.engine) as connection:
        token, secret = _check_token(connection, request, now_ms)
        _check_device(connection, request, named=token["device"] is not None)
        used = {"secret": None, "used_ms": now_ms, "used_by": request.device}
        here = enrolment_tokens.c.token_id == request.token_id
        connection.execute(update(enrolment_tokens).where(here).values(**used))
        by = {"token": request.token_id}
        return _store(services, connection, request, key, token["labels"], by, secret)


def _admit(
    services: Services, request: EnrolmentRequest, key: PublicKey, address: str
) -> Sealed | Waiting:
    """By an operator's word for its key."""
    if admission.ask(services, request, key, address) is None:
        return Waiting(fingerprint=key_id(key))
    with writing(services.engine) as connection:
        approved = admission.take(connection, key)
        _check_device(connection, request, named=approved["asked_ms"] is None)
        by = {"approved_by": approved["decided_by"]}
        return _store(services, connection, request, key, approved["labels"], by, b"")


def slow_down(services: Services, address: str, error: ShoalError | None = None) -> None:
    """Count what failed or waits; raise `TooManyError` for who asks too often."""
    if seconds := services.enrolment_gate.knock(address, services.now_ms()):
        raise TooManyError(
            f"enrolment: too many requests from {address[:80]}, try again in {seconds} s",
            code="too-many-requests",
        ) from error


def _store(
    services: Services,
    connection: Connection,
    request: EnrolmentRequest,
    key: PublicKey,
    labels: dict[str, str],
    by: Document,
    secret: bytes,
) -> Sealed:
    """Write everything of a new device in the caller's transaction, and seal its answer."""
    root = store.current_body(connection, ROOT)
    if root is None:
        raise UnavailableError(
            "enrolment: the controller has published no root for devices to trust yet; "
            "an admin runs shoal keys init, then shoal trust init",
            code="no-root",
        )
    now_ms, device = services.now_ms(), request.device
    values = {
        "site": request.site,
        "profile": request.profile,
        "labels": labels,
        "facts": request.facts,
        "public_key": key,
        "enrolled_ms": now_ms,
        "revoked_ms": None,
        "online": False,
        "status": "unknown",
    }
    upsert(connection, devices, {"device": device}, values)
    came_back = certificates.take_back(connection, device, now_ms)
    days = services.settings.enrolment.certificate_days
    chain = certificates.issue(connection, services.identities.fleet, device, key, now_ms, days)
    data = {"site": request.site, "profile": request.profile} | by
    audit.record(connection, now_ms, f"device {device}", "device.enrol", f"device {device}", data)
    answer = EnrolmentAnswer(
        device=device,
        site=request.site,
        nonce=request.nonce,
        director_keys=[services.director.public_key],
        broker_host=services.broker_host(),
        broker_port=services.broker_port(),
        broker_ca=broker_authorities(services.settings),
        fleet_ca=services.identities.fleet.chain_pem.decode(),
        certificate=chain.decode(),
        repository_url=f"{services.public_url()}/repository",
        root=root,
    )
    envelope = seal(msgspec.json.encode(answer), ENROLMENT_TYPE, services.director)
    mac = hmac.new(secret, envelope.payload, hashlib.sha256).hexdigest() if secret else ""
    return Sealed(encode_envelope(envelope), mac, device, came_back)


async def update_accounts(services: Services) -> None:
    """Let exactly the enrolled devices and our own processes log in to the broker."""
    if services.broker is not None:
        await services.broker.set_accounts(*accounts(services))


async def cut_off(services: Services, device: str) -> None:
    """End what a device has open at the broker with a certificate that was taken back."""
    if services.broker is not None:
        await services.broker.cut_off(device)


def accounts(services: Services) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Passwords of all devices and of our own accounts, and certificates taken back."""
    with reading(services.engine) as connection:
        query = select(devices.c.device, devices.c.enrolled_ms).where(
            devices.c.revoked_ms.is_(None)
        )
        rows = connection.execute(query).all()
        revoked = certificates.taken_back(connection, services.now_ms())
    own = (INGEST_ACCOUNT, DIRECTOR_ACCOUNT)
    return (
        {row.device: services.device_password(row.device, row.enrolled_ms) for row in rows},
        {name: services.account_password(name) for name in own},
        revoked,
    )


def revoke(services: Services, device: str, actor: str) -> None:
    """Take a device out of the fleet; the broker learns it from `update_accounts` and `cut_off`."""
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        here = (devices.c.device == device) & devices.c.revoked_ms.is_(None)
        changed = connection.execute(
            update(devices).where(here).values(revoked_ms=now_ms, online=False)
        )
        if not changed.rowcount:
            raise ConflictError(f"device {device[:80]!r}: not enrolled, or revoked before")
        certificates.take_back(connection, device, now_ms)
        admission.withdraw(connection, device)
        audit.record(connection, now_ms, actor, "device.revoke", f"device {device}")


def _check_token(
    connection: Connection, request: EnrolmentRequest, now_ms: int
) -> tuple[RowMapping, bytes]:
    table = enrolment_tokens
    query = select(table).where(table.c.token_id == request.token_id)
    row = connection.execute(query).mappings().first()
    secret: bytes = (row["secret"] if row else None) or b"\0" * SECRET_BYTES
    signed = proved_by_token(request.device, request.site, request.nonce, request.csr)
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


def _check_device(connection: Connection, request: EnrolmentRequest, *, named: bool) -> None:
    """A device that is enrolled may come back only with a word for it by name."""
    query = select(devices.c.revoked_ms).where(devices.c.device == request.device)
    row = connection.execute(query).first()
    if row is not None and row.revoked_ms is None and not named:
        raise ConflictError(
            f"device {request.device}: is enrolled; to enrol it again, make a token for its name",
            code="already-enrolled",
        )
