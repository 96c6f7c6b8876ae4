"""Passwords: argon2id with the library's parameters (RFC 9106, low memory: 64 MiB, 3 passes).

Passwords are compared in Unicode's NFKC, so that every keyboard types the same one.
"""

from __future__ import annotations

import secrets
import threading
import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shoal.errors import InvalidInputError

MIN_CHARACTERS = 12
MAX_CHARACTERS = 256
_AT_ONCE = threading.BoundedSemaphore(2)
"""Each takes 64 MiB, and strangers can ask for it."""
_hasher = PasswordHasher()


def make_hash(password: str, name: str) -> str:
    """What is stored of a new password of the user `name`; raises where it is too weak."""
    text = _normal(password)
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
        raise InvalidInputError(
            f"password: expected {MIN_CHARACTERS} to {MAX_CHARACTERS} characters, got {len(text)}"
        )
    if len(set(text)) < 4 or name in text.lower().split():
        raise InvalidInputError("password: expected more than the name or a few characters again")
    with _AT_ONCE:
        return _hasher.hash(text)


def verify(stored: str | None, password: str) -> bool:
    """Whether it is the password; without one stored, as long a look and no."""
    text = _normal(password[: MAX_CHARACTERS * 4])
    with _AT_ONCE:
        try:
            _hasher.verify(stored or _nobodys(), text)
        except (VerificationError, InvalidHashError):
            return False
    return stored is not None


def outdated(stored: str) -> bool:
    """Whether it was made with weaker parameters than those of today."""
    return _hasher.check_needs_rehash(stored)


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_urlsafe(32))


def _normal(password: str) -> str:
    try:
        password.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("password: expected characters, got halves of some") from None
    return unicodedata.normalize("NFKC", password)
