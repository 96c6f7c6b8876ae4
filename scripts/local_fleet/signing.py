"""The offline side of a local fleet: root and targets keys, one each, behind a passphrase.

A site of its own keeps them elsewhere (`shoal keys init`); here all is one folder, so that the demo
runs by itself.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from shoal.client import Client
from shoal.package import read_package
from shoal.signing import FileSigner
from shoal.trust import ceremony
from shoal.trust.desk import Desk, target_of_package
from shoal.trust.key_files import decrypt_key, encrypt_key, write_new
from shoal.trust.metadata import RoleKeys
from shoal.trust.roles import ROOT, TARGETS

COST = 14
"""Cheap to open: whoever can read the key can read the passphrase beside it."""


class SigningFolder:
    """Keys in a folder, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, role: str) -> FileSigner:
        """The key of root or targets."""
        path = self._folder / f"{role}.key"
        if not path.exists():
            write_new(path, encrypt_key(FileSigner.generate(), self._passphrase(), COST))
        return decrypt_key(path, self._passphrase())

    def init(self, client: Client) -> None:
        """Publish the first root, unless there is one."""
        if client.trust()["ready"]:
            return
        desk = Desk(client)
        root, targets = self.key(ROOT), self.key(TARGETS)
        proposal = desk.propose_first(RoleKeys((root.public_key,)), RoleKeys((targets.public_key,)))
        for signer in (root, targets):
            ceremony.sign_proposal(None, proposal, signer)
        desk.send(proposal)

    def release(self, client: Client, path: Path) -> None:
        """Upload a package, and publish it in targets metadata."""
        client.push_release(path)
        Desk(client).publish([target_of_package(read_package(path))], [self.key(TARGETS)])

    def _passphrase(self) -> str:
        path = self._folder / "passphrase"
        if not path.exists():
            write_new(path, secrets.token_urlsafe(16).encode())
        return path.read_text(encoding="ascii")
