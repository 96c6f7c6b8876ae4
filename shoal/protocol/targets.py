"""What TUF targets are called, and what stands in them: releases, and the director's keys.

A target's name never becomes a path on a disk: its bytes are fetched by their hash. The one
pattern below is applied where names are published and where they are used.

>>> release_path("pump", 3)
'releases/pump/3.json'
>>> parse_release_path("releases/pump/3.json")
('pump', 3)
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from shoal.errors import InvalidInputError, UntrustedError
from shoal.protocol.desired import Name, Positive, Version

DIRECTOR_PATH = "trust/director.json"
DIRECTOR_KEY_BYTES = 32
MAX_DIRECTOR_KEYS = 8
MAX_DIRECTOR_BYTES = 4096

_RELEASE_PATH = re.compile(r"releases/([a-z0-9][a-z0-9-]{0,62})/([1-9][0-9]{0,15})\.json\Z")


class ReleaseTarget(Struct, kw_only=True, frozen=True):
    """What a target says of its release beside length and hash of the manifest (`custom`)."""

    model: Name
    version: Version
    release_sequence: Positive


class DirectorKeys(Struct, kw_only=True, frozen=True):
    """Who may sign desired states, commands and enrolment answers: `trust/director.json`."""

    keys: list[bytes]
    """Raw Ed25519 keys, 32 bytes each (base64 in JSON)."""
    threshold: Annotated[int, Meta(ge=1)] = 1
    max_validity_seconds: Annotated[int, Meta(ge=60, le=366 * 86400)] = 8 * 86400
    """A message that claims to be valid for longer is refused."""
    min_sequence: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """Desired states below it are refused: raised after a director key was stolen."""


def release_path(model: str, sequence: int) -> str:
    """The target's name of a release."""
    path = f"releases/{model}/{sequence}.json"
    parse_release_path(path)
    return path


def parse_release_path(path: str) -> tuple[str, int]:
    """Model and sequence of a target's name, or `InvalidInputError`."""
    found = _RELEASE_PATH.match(path)
    if found is None:
        raise InvalidInputError(
            f"target {path[:120]!r}: expected releases/<model>/<sequence>.json",
            code="bad-target-name",
        )
    return found[1], int(found[2])


def encode_director(keys: DirectorKeys) -> bytes:
    """The target's bytes; the same for the same keys."""
    return msgspec.json.encode(keys, order="deterministic")


def decode_director(data: bytes) -> DirectorKeys:
    """Decode the target's verified bytes; `UntrustedError` if they name no usable key."""
    if len(data) > MAX_DIRECTOR_BYTES:
        raise UntrustedError(f"{DIRECTOR_PATH}: {len(data)} bytes", code="director-malformed")
    try:
        found = msgspec.json.decode(data, type=DirectorKeys)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"{DIRECTOR_PATH}: {error}", code="director-malformed") from error
    lengths = {len(key) for key in found.keys}
    if lengths != {DIRECTOR_KEY_BYTES} or len(set(found.keys)) != len(found.keys):
        raise UntrustedError(
            f"{DIRECTOR_PATH}: expected different keys of 32 bytes, got lengths {sorted(lengths)}",
            code="director-malformed",
        )
    if not found.threshold <= len(found.keys) <= MAX_DIRECTOR_KEYS:
        raise UntrustedError(
            f"{DIRECTOR_PATH}: {len(found.keys)} keys, expected {found.threshold} to "
            f"{MAX_DIRECTOR_KEYS}",
            code="director-malformed",
        )
    return found
