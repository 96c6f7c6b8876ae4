"""Signing and verifying envelopes with Ed25519, behind two small interfaces.

All trust in this project goes through `Signer` and `Verifier`; what stands behind them (a key
file now, a TUF role or a hardware token later) is the business of whoever builds the objects.
Imported only by short-lived processes and the controller, never by the resident agent.

>>> signer = FileSigner.generate()
>>> sealed = seal(b"{}", "application/x", signer)
>>> KeyVerifier([signer.public_key]).open(sealed, "application/x")
b'{}'
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shoal.errors import InvalidInputError, UntrustedError
from shoal.protocol.envelope import Envelope, Signature, pae

PublicKey = bytes
"""A raw Ed25519 public key, 32 bytes."""


class Signer(Protocol):
    """Something that holds a private key."""

    @property
    def public_key(self) -> PublicKey: ...
    def sign(self, data: bytes) -> bytes: ...


class Verifier(Protocol):
    """Something that knows which keys to believe."""

    def open(self, envelope: Envelope, payload_type: str) -> bytes:
        """Return the verified payload, or raise `UntrustedError`."""
        ...


def key_id(public_key: PublicKey) -> str:
    """Name of a key: SHA-256 of its raw bytes."""
    return hashlib.sha256(public_key).hexdigest()


def seal(payload: bytes, payload_type: str, *signers: Signer) -> Envelope:
    """Sign `payload` with every signer."""
    data = pae(payload_type, payload)
    return Envelope(
        payload=payload,
        payload_type=payload_type,
        signatures=[Signature(key_id(one.public_key), one.sign(data)) for one in signers],
    )


class FileSigner:
    """An Ed25519 private key kept in a file of mode 0600, 32 raw bytes in base64."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_key: PublicKey = private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> FileSigner:
        """Make a fresh key, in memory only."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> FileSigner:
        """Read a key file; a missing or broken one is refused, never replaced."""
        try:
            raw = base64.b64decode(path.read_bytes().strip(), validate=True)
            return cls(Ed25519PrivateKey.from_private_bytes(raw))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"key file {path}: {error}", code="key-unreadable") from error

    @classmethod
    def load_or_create(cls, path: Path) -> FileSigner:
        """Read the key at `path`, or make one there if there is no such file."""
        if path.exists():
            return cls.load(path)
        signer = cls.generate()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(signer._private.private_bytes_raw()) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return signer

    def private_bytes(self) -> bytes:
        """The raw private key, for whoever encrypts it."""
        return self._private.private_bytes_raw()

    def private_pem(self) -> bytes:
        """The key as PKCS #8, PEM: what TLS libraries read."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of `data`."""
        return self._private.sign(data)


class KeyVerifier:
    """Believes an envelope that enough of a fixed set of keys have signed.

    With no keys it refuses everything: a missing key never means unverified.
    """

    def __init__(self, keys: Iterable[PublicKey], threshold: int = 1) -> None:
        try:
            self._keys = {key_id(key): Ed25519PublicKey.from_public_bytes(key) for key in keys}
        except ValueError as error:
            raise UntrustedError(f"public key: {error}", code="bad-key") from error
        self._threshold = threshold

    @property
    def key_count(self) -> int:
        """How many keys are believed."""
        return len(self._keys)

    def open(self, envelope: Envelope, payload_type: str) -> bytes:
        """Return the payload, or raise `UntrustedError` with a distinct code."""
        if envelope.payload_type != payload_type:
            raise UntrustedError(
                f"envelope: expected {payload_type}, got {envelope.payload_type[:80]!r}",
                code="wrong-payload-type",
            )
        data = pae(payload_type, envelope.payload)
        good = {
            signature.keyid for signature in envelope.signatures if self._holds(signature, data)
        }
        if len(good) < self._threshold:
            known = [s.keyid[:8] for s in envelope.signatures if s.keyid in self._keys]
            code = "bad-signature" if known else "unknown-key"
            raise UntrustedError(
                f"{payload_type}: {len(good)} valid signatures, {self._threshold} needed "
                f"(keys trusted: {len(self._keys)}, signed by a trusted key: {len(known)})",
                code=code,
            )
        return envelope.payload

    def _holds(self, signature: Signature, data: bytes) -> bool:
        key = self._keys.get(signature.keyid)
        if key is None:
            return False
        try:
            key.verify(signature.sig, data)
        except InvalidSignature:
            return False
        return True
