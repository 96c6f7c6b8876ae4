"""What a sign-in at a provider begins with and what it ends with; needs nothing heavy."""

from __future__ import annotations

import base64
import hmac

import msgspec
from msgspec import Struct

from controller.errors import UnauthenticatedError

BEGUN_SECONDS = 600
"""How long somebody may take at the provider."""
MAX_PART = 4096


class Begun(Struct, frozen=True):
    """A sign-in under way; it lies in the browser, sealed."""

    state: str
    nonce: str
    verifier: str
    goal: str
    expires_ms: int


class Claims(Struct, frozen=True):
    """What the provider says of a person."""

    issuer: str
    subject: str
    name: str
    groups: list[str]


def seal_begun(begun: Begun, key: bytes) -> str:
    """As text that only who has the key can make."""
    data = msgspec.json.encode(begun)
    return base64.urlsafe_b64encode(hmac.digest(key, data, "sha256") + data).decode()


def open_begun(text: str, key: bytes, now_ms: int) -> Begun:
    """Read what `seal_begun` made, or raise."""
    try:
        raw = base64.urlsafe_b64decode(text[:MAX_PART].encode())
        mac, data = raw[:32], raw[32:]
        if not hmac.compare_digest(mac, hmac.digest(key, data, "sha256")):
            raise ValueError("not ours")
        begun = msgspec.json.decode(data, type=Begun)
    except ValueError as error:
        raise UnauthenticatedError(
            "sign in: this browser has not begun it here, or it took too long; try again"
        ) from error
    if begun.expires_ms <= now_ms:
        raise UnauthenticatedError("sign in: it took too long; try again")
    return begun
