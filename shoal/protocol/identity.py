"""What devices and controller say about who a device is, after it was enrolled.

Renewal goes over HTTP, in an envelope that the device's key signs, so that it needs neither the
broker nor a token; asking twice gives the same certificate twice.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from shoal.ids import NAME_PATTERN
from shoal.protocol import SCHEMA

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Nonce = Annotated[bytes, Meta(min_length=16, max_length=64)]

RENEWAL_TYPE = "application/vnd.shoal.renewal.v1+json"
ANSWER_TYPE = "application/vnd.shoal.renewed.v1+json"


class RenewalRequest(Struct, kw_only=True, frozen=True):
    """A device's wish for a certificate that holds longer."""

    schema: int = SCHEMA
    device: Name
    nonce: Nonce
    csr: bytes
    """PKCS #10, DER, for the key that the device enrolled with."""


class RenewalAnswer(Struct, kw_only=True, frozen=True):
    """The new certificate, and where the broker is by now; sealed by the director key."""

    schema: int = SCHEMA
    device: Name
    nonce: Nonce
    certificate: str
    """PEM: the device's own, then those between it and the root."""
    broker_host: str
    broker_port: int
    broker_ca: str
    """PEM: who vouches for the broker."""


class Waiting(Struct, kw_only=True, frozen=True):
    """An unknown device waits for an operator; it asks again after a while."""

    schema: int = SCHEMA
    state: str = "pending"
    fingerprint: str
    """Of the device's key; the operator compares it."""
    retry_seconds: float = 5.0


def proved_by_token(device: str, site: str, nonce: bytes, csr: bytes) -> bytes:
    """What the proof in an enrolment covers: HMAC-SHA256(secret, this)."""
    return b"|".join((device.encode(), site.encode(), nonce.hex().encode(), csr))


def decode_waiting(body: bytes) -> Waiting:
    """Decode the answer to a device that has to wait."""
    return msgspec.json.decode(body, type=Waiting)
