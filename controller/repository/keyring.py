"""The controller's own keys: files below `keys/`, one or more a role, newest last.

The first is `<role>.key`; `shoal-controller new-key ROLE` adds `<role>-2.key` and so on. Which one
signs is not the controller's choice: the published root names those of snapshot and timestamp,
the published `trust/director.json` those of the director.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from shoal.errors import InvalidInputError
from shoal.signing import FileSigner, PublicKey
from shoal.trust.roles import DIRECTOR, ONLINE

KEY_ROLES = (*ONLINE, DIRECTOR)
_NUMBER = re.compile(r"-([1-9][0-9]{0,3})\.key\Z")


class Keyring:
    """The private keys of the online roles, looked up by role."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def signers(self, role: str) -> list[FileSigner]:
        """All keys of a role, oldest first."""
        return [FileSigner.load(path) for path in self._files(role)]

    def public_keys(self, role: str) -> list[PublicKey]:
        """Their public halves."""
        return [one.public_key for one in self.signers(role)]

    def chosen(self, role: str, named: Collection[PublicKey]) -> FileSigner | None:
        """The oldest key of a role that is named; None if none is.

        While an old and a new key are both named the old one signs, so that nobody meets a
        signature of a key that has not reached them.
        """
        return next((one for one in self.signers(role) if one.public_key in named), None)

    def make_missing(self) -> list[str]:
        """Make the first key of each role that has none; return what was made."""
        made = []
        for role in KEY_ROLES:
            if not self._files(role):
                FileSigner.load_or_create(self._folder / f"{role}.key")
                made.append(f"{role} key")
        return made

    def add(self, role: str) -> PublicKey:
        """Make one key more for a role."""
        if role not in KEY_ROLES:
            raise InvalidInputError(f"role {role[:40]!r}: expected {', '.join(KEY_ROLES)}")
        number = max((_number(path) for path in self._files(role)), default=0) + 1
        name = f"{role}.key" if number == 1 else f"{role}-{number}.key"
        return FileSigner.load_or_create(self._folder / name).public_key

    def _files(self, role: str) -> list[Path]:
        found = [self._folder / f"{role}.key", *self._folder.glob(f"{role}-*.key")]
        return sorted((path for path in found if path.is_file()), key=_number)


def _number(path: Path) -> int:
    found = _NUMBER.search(path.name)
    return int(found[1]) if found else 1
