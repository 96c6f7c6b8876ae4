"""Desired state: what one device shall run, and the messages of enrolment.

The controller publishes it retained, in an envelope signed by the director key. A device obeys
only what names it, is newer than the last it accepted, has not expired, and assigns releases
that are signed targets of the repository; so a stolen broker can delay, never choose.

`check_desired` holds the rules that need no key; they run after the signature is verified.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from shoal.errors import UntrustedError
from shoal.ids import DIGEST_PATTERN, NAME_PATTERN, VERSION_PATTERN
from shoal.protocol import SCHEMA

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Version = Annotated[str, Meta(pattern=VERSION_PATTERN)]
Sha256 = Annotated[str, Meta(pattern=DIGEST_PATTERN)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]

MAX_SEQUENCE_STEP = 2**20
"""A jump beyond this is refused, or a stolen key could exhaust the counter (`trust`, row 6)."""


class Assignment(Struct, kw_only=True, frozen=True):
    """One model of one device."""

    model: Name
    version: Version
    release_sequence: Positive
    manifest_sha256: Sha256
    manifest_length: Positive
    rollout: str = ""
    wave: int = 0
    attempt: int = 0
    intent: Literal["update", "rollback"] = "update"
    """rollback lets the device go back to an older release it is told of."""
    probation_seconds: float | None = None
    """Operator's probation time; None: the manifest's."""
    shadow_rows: int | None = None
    shadow_seconds: float | None = None
    """Operator's shadow run; None: the manifest's."""


LOG_LEVELS = ("debug", "info", "warning", "error")


class DeviceOptions(Struct, kw_only=True, frozen=True):
    """A few safe settings an operator may give a device from afar; None leaves its own."""

    window_seconds: Annotated[float, Meta(ge=0.2, le=3600)] | None = None
    health_seconds: Annotated[float, Meta(ge=0.2, le=3600)] | None = None
    capture: bool | None = None
    """false: nothing is captured, whatever packages ask for."""
    log_level: str | None = None
    """One of `LOG_LEVELS`; another, of a newer controller, is as none."""


class DesiredState(Struct, kw_only=True, frozen=True):
    """All that one device shall run; models it has and this does not name are left alone."""

    schema: int = SCHEMA
    device: Name
    sequence: Positive
    issued: datetime
    expires: datetime
    models: list[Assignment]
    options: DeviceOptions = DeviceOptions()


class EnrolmentRequest(Struct, kw_only=True, frozen=True):
    """What a new device asks with; its private key stays on it.

    `proof` is an HMAC by the token's secret (`identity.proved_by_token`), which so never crosses
    the wire. A device without a token leaves both out and waits for an operator.
    """

    schema: int = SCHEMA
    device: Name
    site: Name
    profile: Annotated[str, Meta(max_length=120)]
    csr: bytes
    """A certificate request, PKCS #10, DER (base64 in JSON)."""
    nonce: Annotated[bytes, Meta(min_length=16, max_length=64)]
    token_id: Name | None = None
    proof: bytes = b""
    facts: dict[str, str | int | float | bool] = {}


class EnrolmentAnswer(Struct, kw_only=True, frozen=True):
    """What the device needs from then on; sealed by the director key."""

    schema: int = SCHEMA
    device: Name
    site: Name
    nonce: bytes
    """The request's."""
    director_keys: list[bytes]
    """Whose seal this is; later messages are believed by `trust/director.json`."""
    broker_host: str
    broker_port: int
    broker_ca: str
    """PEM: who vouches for the broker."""
    fleet_ca: str
    """PEM: who vouches for devices."""
    certificate: str
    """PEM: the device's own, then those between it and the root."""
    repository_url: str
    """Base of `/metadata/<name>.json` and `/files/<sha256>`."""
    root: Annotated[bytes, Meta(min_length=1)]
    """The newest root metadata as published: what the device pins and follows from then on."""


def decode_desired(payload: bytes) -> DesiredState:
    """Decode a verified payload."""
    try:
        return msgspec.json.decode(payload, type=DesiredState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"desired state: {error}", code="desired-malformed") from error


def check_desired(desired: DesiredState, *, device: str, floor: int, now: datetime) -> None:
    """Raise `UntrustedError` unless `device` may obey `desired` at `now`.

    `floor` is the highest sequence accepted before. An equal sequence is the same message
    delivered again and passes; whether it is the same is for the caller to compare.
    """
    if desired.device != device:
        raise UntrustedError(
            f"desired state: expected device {device}, got {desired.device}", code="wrong-device"
        )
    if desired.sequence < floor:
        raise UntrustedError(
            f"desired state: sequence {desired.sequence}, {floor} was accepted before",
            code="old-sequence",
        )
    if desired.sequence > floor + MAX_SEQUENCE_STEP:
        raise UntrustedError(
            f"desired state: sequence {desired.sequence} is too far above {floor}",
            code="sequence-jump",
        )
    if desired.schema > SCHEMA:
        raise UntrustedError(
            f"desired state: schema {desired.schema}, this agent reads up to {SCHEMA}",
            code="schema-too-new",
        )
    if now >= desired.expires:
        raise UntrustedError(
            f"desired state: expired {desired.expires.isoformat()}, now {now.isoformat()}",
            code="expired",
        )
