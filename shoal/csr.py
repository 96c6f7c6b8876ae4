"""Certificate requests (PKCS #10) with an Ed25519 key, made by any `Signer`.

A key in a hardware token cannot be handed to a library, so the request is put together here and
only its signature is asked for. `read_request` is the other side: it believes nothing but the key,
and that only when the request's own signature holds.

>>> from shoal.signing import FileSigner
>>> signer = FileSigner.generate()
>>> read_request(make_request("gw-1", signer)) == signer.public_key
True
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from shoal.errors import InvalidInputError
from shoal.signing import PublicKey, Signer

MAX_REQUEST_BYTES = 4096

_INTEGER, _BIT_STRING, _SEQUENCE, _ATTRIBUTES = 0x02, 0x03, 0x30, 0xA0
_ED25519 = bytes.fromhex("300506032b6570")


def make_request(name: str, signer: Signer) -> bytes:
    """A request for a certificate of `name`, DER."""
    key = Ed25519PublicKey.from_public_bytes(signer.public_key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    info = _der(
        _SEQUENCE,
        _der(_INTEGER, b"\0"),
        subject.public_bytes(),
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        _der(_ATTRIBUTES),
    )
    return _der(_SEQUENCE, info, _ED25519, _der(_BIT_STRING, b"\0", signer.sign(info)))


def read_request(request: bytes) -> PublicKey:
    """The key that a request is for, or `InvalidInputError`; its other wishes are not read."""
    if len(request) > MAX_REQUEST_BYTES:
        raise InvalidInputError(
            f"certificate request: {len(request)} bytes, at most {MAX_REQUEST_BYTES}",
            code="invalid-request",
        )
    try:
        found = x509.load_der_x509_csr(request)
        key = found.public_key()
        holds = isinstance(key, Ed25519PublicKey) and found.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidInputError(f"certificate request: {error}", code="invalid-request") from error
    if not holds or not isinstance(key, Ed25519PublicKey):
        raise InvalidInputError(
            "certificate request: expected an Ed25519 key that signed it", code="invalid-request"
        )
    return key.public_bytes_raw()


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 | len(digits))) + digits + content
