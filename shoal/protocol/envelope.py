"""DSSE envelopes: the bytes that are signed, and the JSON that carries them.

Pure encoding, no cryptography (that is `shoal.signing`), so the resident agent may import it.
Source: DSSE protocol v1.0.2, https://github.com/secure-systems-lab/dsse. A verifier parses the
payload bytes it has verified and never the envelope again.

>>> pae("application/x", b"hi")
b'DSSEv1 13 application/x 2 hi'
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from shoal.errors import UntrustedError

MAX_ENVELOPE_BYTES = 64 * 1024

DESIRED_TYPE = "application/vnd.shoal.desired.v1+json"
COMMAND_TYPE = "application/vnd.shoal.command.v1+json"
RELEASE_TYPE = "application/vnd.shoal.release.v1+json"
ENROLMENT_TYPE = "application/vnd.shoal.enrolment.v1+json"


class Signature(Struct):
    """One signature, by the key named `keyid` (SHA-256 of its raw public key)."""

    keyid: str
    sig: bytes


class Envelope(Struct, rename={"payload_type": "payloadType"}):
    """A signed payload; msgspec carries `bytes` as base64, as DSSE asks."""

    payload: bytes
    payload_type: str
    signatures: list[Signature]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: exactly what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def encode_envelope(envelope: Envelope) -> bytes:
    """Encode an envelope as JSON."""
    return msgspec.json.encode(envelope)


def decode_envelope(data: bytes) -> Envelope:
    """Decode an envelope; every malformed input is one `UntrustedError`."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise UntrustedError(
            f"envelope: {len(data)} bytes, at most {MAX_ENVELOPE_BYTES} allowed",
            code="envelope-too-large",
        )
    try:
        return msgspec.json.decode(data, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"envelope: {error}", code="envelope-malformed") from error
