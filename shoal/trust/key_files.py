"""Encrypted key files: a private Ed25519 key behind a passphrase, JSON, mode 0600.

scrypt stretches the passphrase (128 MiB for each guess at the default cost), ChaCha20-Poly1305
encrypts the key, with the public key as associated data. `cryptography` writes PKCS#8 only with
2,048 rounds of PBKDF2, which is why the format is our own; its parts are the library's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta, Struct

from shoal.errors import InvalidInputError, UntrustedError
from shoal.signing import FileSigner, PublicKey

KIND = "shoal-encrypted-key"
DEFAULT_COST = 17
"""scrypt with 2^17 blocks of 1 KiB."""
MIN_PASSPHRASE = 8
MAX_KEY_FILE_BYTES = 4096
_BLOCK, _PARALLEL = 8, 1


class KeyFile(Struct, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    kind: str
    schema: int = 1
    public_key: bytes
    cost: Annotated[int, Meta(ge=10, le=22)]
    salt: Annotated[bytes, Meta(min_length=16, max_length=64)]
    nonce: Annotated[bytes, Meta(min_length=12, max_length=12)]
    sealed: bytes


def encrypt_key(signer: FileSigner, passphrase: str, cost: int = DEFAULT_COST) -> bytes:
    """A key as an encrypted file's content."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise InvalidInputError(
            f"passphrase: {len(passphrase)} characters, expected {MIN_PASSPHRASE} or more",
            code="weak-passphrase",
        )
    salt, nonce = os.urandom(16), os.urandom(12)
    cipher = ChaCha20Poly1305(_stretch(passphrase, salt, cost))
    sealed = cipher.encrypt(nonce, signer.private_bytes(), signer.public_key)
    found = KeyFile(
        kind=KIND,
        public_key=signer.public_key,
        cost=cost,
        salt=salt,
        nonce=nonce,
        sealed=sealed,
    )
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def write_new(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 that must not exist yet, durably."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InvalidInputError(f"key file {path}: {error.strerror}") from error


def read_public(path: Path) -> PublicKey:
    """The public half of a key file, for which no passphrase is needed."""
    return _read(path).public_key


def decrypt_key(path: Path, passphrase: str) -> FileSigner:
    """The key in a file."""
    found = _read(path)
    cipher = ChaCha20Poly1305(_stretch(passphrase, found.salt, found.cost))
    try:
        raw = cipher.decrypt(found.nonce, found.sealed, found.public_key)
    except InvalidTag as error:
        raise UntrustedError(
            f"key file {path}: the passphrase does not open it", code="wrong-passphrase"
        ) from error
    return FileSigner(Ed25519PrivateKey.from_private_bytes(raw))


def _read(path: Path) -> KeyFile:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES + 1)
        found = msgspec.json.decode(data, type=KeyFile)
    except OSError as error:
        raise InvalidInputError(
            f"key file {path}: {error.strerror}", code="key-unreadable"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"key file {path}: expected an encrypted key made by `shoal keys init`: {error}",
            code="key-unreadable",
        ) from error
    if found.kind != KIND or len(found.public_key) != 32:
        raise InvalidInputError(f"key file {path}: is of another kind", code="key-unreadable")
    return found


def _stretch(passphrase: str, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt, length=32, n=2**cost, r=_BLOCK, p=_PARALLEL).derive(passphrase.encode())
