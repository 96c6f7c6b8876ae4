"""What enrolment left in the state folder: keys to believe.

A missing or broken file refuses everything; nothing is ever accepted unverified for lack of a key.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from shoal.errors import UntrustedError

TRUST_NAME = "trust.json"
DEVICE_KEY_NAME = "device.key"


class Trust(Struct, frozen=True):
    """Pinned public keys, and where releases are fetched."""

    director_keys: list[bytes]
    release_keys: list[bytes]
    release_threshold: int
    repository_url: str


def load_trust(state_dir: Path) -> Trust:
    """Read the pinned keys, or raise `UntrustedError` so that nothing is accepted."""
    path = state_dir / TRUST_NAME
    try:
        trust = msgspec.json.decode(path.read_bytes(), type=Trust)
    except (OSError, msgspec.DecodeError) as error:
        raise UntrustedError(f"{path}: {error}", code="no-trust") from error
    if not trust.director_keys or not trust.release_keys or trust.release_threshold < 1:
        raise UntrustedError(f"{path}: holds no keys", code="no-trust")
    return trust
