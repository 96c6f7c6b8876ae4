"""Which of the controller's director keys signs: the published `trust/director.json` says.

While an old and a new key are published the old one signs; when the old one is taken out the new
one does, and every desired state is signed anew, as devices refuse what the old one signed.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, update
from tuf.api.metadata import Targets

from controller.artifacts import Artifacts
from controller.repository import store
from controller.repository.keyring import Keyring
from controller.schema import desired
from shoal.errors import InvalidInputError
from shoal.protocol.targets import DIRECTOR_PATH, DirectorKeys, decode_director
from shoal.signing import FileSigner, PublicKey, key_id
from shoal.trust.roles import DIRECTOR, TARGETS

log = logging.getLogger("controller.repository")


class DirectorKey:
    """The director's signer; another key may take its place while the controller runs."""

    def __init__(self, signer: FileSigner) -> None:
        self._signer = signer

    @property
    def public_key(self) -> PublicKey:
        """The public half of the key that signs now."""
        return self._signer.public_key

    def sign(self, data: bytes) -> bytes:
        """Sign with the key that signs now."""
        return self._signer.sign(data)

    def use(self, signer: FileSigner) -> bool:
        """Sign with this key from now on; whether it is another one."""
        changed = signer.public_key != self._signer.public_key
        self._signer = signer
        if changed:
            log.warning("event=director-key key=%s", key_id(signer.public_key)[:16])
        return changed


def load_director(connection: Connection, artifacts: Artifacts, keyring: Keyring) -> DirectorKey:
    """The key that the published targets name; before there are any, the first."""
    held = keyring.signers(DIRECTOR)
    if not held:
        raise InvalidInputError("director key: there is none; run shoal-controller init")
    targets = store.current(connection, TARGETS, Targets)
    if targets is None:
        return DirectorKey(held[0])
    digest = targets.signed.targets[DIRECTOR_PATH].hashes["sha256"]
    named = decode_director(artifacts.path(digest).read_bytes())
    return DirectorKey(choose_director(keyring, named))


def choose_director(keyring: Keyring, named: DirectorKeys) -> FileSigner:
    """The oldest of our keys that is named."""
    found = keyring.chosen(DIRECTOR, named.keys)
    if found is None or named.threshold != 1:
        raise InvalidInputError(
            f"{DIRECTOR_PATH}: names no key that this controller holds, with threshold 1",
            code="no-online-key",
        )
    return found


def sign_all_anew(connection: Connection) -> None:
    """Every desired state is signed again, by the key that signs now."""
    connection.execute(update(desired).values(dirty=True))
