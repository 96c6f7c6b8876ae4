"""One secret and what is derived from it: tokens of forms, and passwords of a plain broker."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from controller.config import Settings
from controller.state_files import write_private
from shoal.errors import InvalidInputError


def derive(secret: bytes, label: str) -> str:
    """A password of 43 characters for a label."""
    digest = hmac.new(secret, label.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def load_secret(settings: Settings) -> bytes:
    """Read the broker secret; it is made by `init`."""
    try:
        secret = base64.b64decode(settings.broker_secret.read_bytes(), validate=True)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{settings.broker_secret}: {error}") from error
    if len(secret) < 32:
        raise InvalidInputError(f"{settings.broker_secret}: too short")
    return secret


def make_secret(settings: Settings) -> None:
    """Make the broker secret where there is none."""
    if not settings.broker_secret.exists():
        settings.broker_secret.parent.mkdir(parents=True, exist_ok=True)
        write_private(settings.broker_secret, base64.b64encode(os.urandom(32)))
