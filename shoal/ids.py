"""Names of things, as types of their own, and the one pattern each must match.

Device, site, model and rollout names appear in topics, file names and certificates, so the
pattern leaves no room for separators, wildcards or paths (`trust.md`, rows 25 and 29).

>>> parse_device("gw-12")
'gw-12'
"""

from __future__ import annotations

import re
from typing import NewType

from shoal.errors import InvalidInputError

DeviceId = NewType("DeviceId", str)
SiteId = NewType("SiteId", str)
ModelName = NewType("ModelName", str)
RolloutId = NewType("RolloutId", str)
Digest = NewType("Digest", str)
"""SHA-256 of a file, 64 lower-case hexadecimal digits."""

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
VERSION_PATTERN = r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"

_NAME = re.compile(NAME_PATTERN + r"\Z")
_DIGEST = re.compile(DIGEST_PATTERN + r"\Z")


def is_name(text: str) -> bool:
    """Whether `text` may name a device, site, model or rollout."""
    return _NAME.match(text) is not None


def parse_device(text: str) -> DeviceId:
    """Return `text` as a device id, or raise `InvalidInputError`."""
    return DeviceId(_checked(text, "device"))


def parse_site(text: str) -> SiteId:
    """Return `text` as a site id, or raise `InvalidInputError`."""
    return SiteId(_checked(text, "site"))


def parse_model(text: str) -> ModelName:
    """Return `text` as a model name, or raise `InvalidInputError`."""
    return ModelName(_checked(text, "model"))


def parse_digest(text: str) -> Digest:
    """Return `text` as a SHA-256 digest, or raise `InvalidInputError`."""
    if _DIGEST.match(text) is None:
        raise InvalidInputError(f"digest {text[:80]!r}: expected 64 hexadecimal digits")
    return Digest(text)


def _checked(text: str, what: str) -> str:
    if not is_name(text):
        raise InvalidInputError(
            f"{what} name {text[:80]!r}: expected a-z, 0-9 and '-', at most 63 characters, "
            "starting with a letter or digit"
        )
    return text
