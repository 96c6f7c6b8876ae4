"""Renewal: a device whose certificate ends soon gets the next one for the same key.

It proves itself by signing the request with the key it enrolled with, and only while the
certificate it has still holds; one that comes too late needs a new token. Who repeats a request
gets the same certificate again, so a lost answer costs nothing and nobody can make us sign on and
on.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from controller import audit
from controller.database import reading, writing
from controller.errors import ForbiddenError
from controller.identity import certificates
from controller.identity.identities import broker_authorities
from controller.schema import devices
from controller.services import Services
from shoal.csr import read_request
from shoal.errors import InvalidInputError, UntrustedError
from shoal.protocol.envelope import Envelope, decode_envelope, encode_envelope
from shoal.protocol.identity import ANSWER_TYPE, RENEWAL_TYPE, RenewalAnswer, RenewalRequest
from shoal.signing import KeyVerifier, PublicKey, seal

FRESH_SHARE = 0.2
"""A certificate this young, as a share of its life, is given again in place of a new one."""


def renew(services: Services, body: bytes) -> bytes:
    """Check a sealed request and return the sealed answer."""
    now_ms = services.now_ms()
    envelope = decode_envelope(body)
    with reading(services.engine) as connection:  # repeating a request keeps no writer waiting
        request, key = _check(connection, envelope)
        chain = _fresh(connection, request.device, now_ms)
    if chain is None:
        with writing(services.engine) as connection:
            request, key = _check(connection, envelope)
            chain = _fresh(connection, request.device, now_ms) or _issue(
                services, connection, request.device, key, now_ms
            )
    answer = RenewalAnswer(
        device=request.device,
        nonce=request.nonce,
        certificate=chain.decode(),
        broker_host=services.broker_host(),
        broker_port=services.broker_port(),
        broker_ca=broker_authorities(services.settings),
    )
    return encode_envelope(seal(msgspec.json.encode(answer), ANSWER_TYPE, services.director))


def _check(connection: Connection, envelope: Envelope) -> tuple[RenewalRequest, PublicKey]:
    """The verified request and the key that the device enrolled with."""
    here = devices.c.device == _claimed_device(envelope)
    row = connection.execute(devices.select().where(here)).first()
    if row is None or row.revoked_ms is not None:
        raise _refused()
    request = _open(envelope, row.public_key)
    if read_request(request.csr) != row.public_key:
        raise InvalidInputError(
            f"renewal of {row.device}: the request is for another key than it enrolled with",
            code="invalid-request",
        )
    return request, row.public_key


def _fresh(connection: Connection, device: str, now_ms: int) -> bytes | None:
    """The certificate that the device has, if it is young; raises if it has ended."""
    held = certificates.newest(connection, device)
    if held is None or held.not_after_ms <= now_ms:
        raise ForbiddenError(
            f"device {device}: its certificate has ended; enrol it again with a token for its name",
            code="certificate-ended",
        )
    young = now_ms - held.issued_ms < FRESH_SHARE * (held.not_after_ms - held.issued_ms)
    return bytes(held.chain) if young else None


def _issue(
    services: Services, connection: Connection, device: str, key: PublicKey, now_ms: int
) -> bytes:
    days = services.settings.enrolment.certificate_days
    chain = certificates.issue(connection, services.identities.fleet, device, key, now_ms, days)
    audit.record(connection, now_ms, f"device {device}", "device.renew", f"device {device}")
    return chain


def _claimed_device(envelope: Envelope) -> str:
    """Whose key to check with; the name is believed only after that."""
    try:
        return msgspec.json.decode(envelope.payload, type=RenewalRequest).device
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"renewal: {error}", code="invalid-renewal") from error


def _open(envelope: Envelope, public_key: bytes) -> RenewalRequest:
    try:
        payload = KeyVerifier([public_key]).open(envelope, RENEWAL_TYPE)
    except UntrustedError as error:
        raise _refused() from error
    return msgspec.json.decode(payload, type=RenewalRequest)


def _refused() -> ForbiddenError:
    return ForbiddenError(
        "renewal: not a device of this fleet, or not signed by its key", code="renewal-refused"
    )
