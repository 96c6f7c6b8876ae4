"""What a lock pins: names, versions, markers, and the hashes of every file that may be installed.

read_lock("six==1.17.0 --hash=sha256:4721…")[0].purl      pkg:pypi/six@1.17.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from shoal.errors import InvalidInputError

INSTALLED = ("agent", "agent-small", "agent-tflite-runtime", "controller")
"""The locks of those who install, by the name of the extra."""
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


@dataclass(frozen=True, slots=True)
class Pin:
    """One version of one package, and where it is installed."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def lock_path(extra: str) -> str:
    """Where a lock lies in the repository."""
    return f"locks/{extra}.lock"


def read_lock(text: str, name: str = "lock") -> list[Pin]:
    """Every pin, in the file's order; an entry without one version or without hashes is refused."""
    lines = [one for one in text.splitlines() if not one.lstrip().startswith("#")]
    entries = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [_pin(one, name) for one in entries if one.strip()]


def _pin(entry: str, name: str) -> Pin:
    try:
        requirement = Requirement(entry.partition("--hash")[0])
    except InvalidRequirement as error:
        raise InvalidInputError(f"{name}: {entry[:80]!r}: {error}") from error
    versions = list(requirement.specifier)
    hashes = frozenset(_HASH.findall(entry))
    if len(versions) != 1 or versions[0].operator != "==" or not hashes:
        raise InvalidInputError(
            f"{name}: {requirement.name}: expected one version and its sha256 hashes, "
            f"got {str(requirement.specifier) or 'none'} with {len(hashes)} hashes"
        )
    marker = str(requirement.marker or "")
    return Pin(canonicalize_name(requirement.name), versions[0].version, marker, hashes)
