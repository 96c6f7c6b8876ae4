"""The signer's desk: what is published, fetched and verified; proposals made, signed and sent.

    desk = Desk(client, trusted_root)
    desk.publish([target], signers)

Everything here is signed on this machine; the controller only gives and takes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from tuf.api.metadata import Metadata, Root, TargetFile

from shoal.client import Client
from shoal.errors import InvalidInputError, UntrustedError
from shoal.package import Package
from shoal.protocol.targets import (
    DIRECTOR_PATH,
    DirectorKeys,
    ReleaseTarget,
    decode_director,
    release_path,
)
from shoal.signing import Signer
from shoal.trust import ceremony
from shoal.trust.metadata import Contents, RoleKeys, encode, release_target
from shoal.trust.proposal import Base, Proposal, decode_base, encode_proposal
from shoal.trust.roles import DEFAULT_BIN_BITS, DIRECTOR, ONLINE, ROOT

Document = dict[str, Any]


class Desk:
    """One controller, and the root that this signer trusts (None: whatever is published)."""

    def __init__(self, client: Client, trusted: Metadata[Root] | None = None) -> None:
        self._client = client
        self._trusted = trusted
        self.base = Base()
        self.contents: Contents | None = None

    def fetch(self, targets: Sequence[str] | None = None) -> Contents | None:
        """Fetch and verify what is published: all, or what these targets belong to."""
        document = self._client.trust_metadata(targets)
        self.base = decode_base(msgspec.json.encode(document))
        self.contents = ceremony.verify_base(self.base, self._trusted)
        return self.contents

    def fetch_published(self, targets: Sequence[str] | None = None) -> Contents:
        """The same, where there must be something."""
        if (found := self.fetch(targets)) is None:
            raise InvalidInputError(
                "the controller has no root yet: shoal keys init, then shoal trust init",
                code="no-root",
            )
        return found

    def propose_first(
        self, root: RoleKeys, targets: RoleKeys, bin_bits: int = DEFAULT_BIN_BITS
    ) -> Proposal:
        """The first root, with the online keys that the controller made."""
        if self.fetch([]) is not None:
            raise InvalidInputError(
                "the controller has a root already: shoal trust show", code="root-exists"
            )
        online = self.online_keys()
        roles = {ROOT: root, "targets": targets}
        roles |= {role: RoleKeys(tuple(online[role])) for role in ONLINE}
        director = DirectorKeys(keys=online[DIRECTOR])
        return ceremony.propose_first(roles, director, datetime.now(UTC), bin_bits)

    def online_keys(self) -> dict[str, list[bytes]]:
        """Public keys that the controller holds, by role, oldest first."""
        found = self._client.trust()["online_keys"]
        return {
            role: [base64.b64decode(one["public_key"]) for one in keys]
            for role, keys in found.items()
        }

    def director(self) -> DirectorKeys:
        """The director's keys as published."""
        assert self.contents is not None
        return decode_director(self.base.files[DIRECTOR_PATH])

    def propose_releases(self, targets: Sequence[TargetFile]) -> Proposal:
        """Releases to be published."""
        contents = self.fetch_published([one.path for one in targets])
        return ceremony.propose_releases(contents, targets, datetime.now(UTC))

    def send(self, proposal: Proposal) -> Document:
        """Hand a proposal to the controller; it publishes it, or refuses it in words."""
        if missing := ceremony.find_missing(self.contents, proposal):
            one = missing[0]
            raise UntrustedError(
                f"{one.role}: {one.found} of {one.needed} signatures; more signers are needed",
                code="under-signed",
            )
        return self._client.publish_trust(encode_proposal(proposal))

    def publish(self, targets: Sequence[TargetFile], signers: Iterable[Signer]) -> Document:
        """Propose, sign and send releases in one go."""
        proposal = self.propose_releases(targets)
        for one in signers:
            ceremony.sign_proposal(self.contents, proposal, one)
        return self.send(proposal)

    def root_after(self, proposal: Proposal | None = None) -> bytes:
        """The newest root: the proposal's, or the published one."""
        if proposal is not None and proposal.root is not None:
            return encode(proposal.root)
        return encode(self.base.roots[-1])


def target_of_package(package: Package) -> TargetFile:
    """A package's release as a target, from the package itself."""
    manifest = package.manifest
    custom = ReleaseTarget(
        model=manifest.model, version=manifest.version, release_sequence=manifest.sequence
    )
    return release_target(custom, package.manifest_sha256, len(package.manifest_bytes))


def target_of_release(release: Document) -> TargetFile:
    """A release as the controller tells of it; who signs compares the digest."""
    custom = ReleaseTarget(
        model=release["model"],
        version=release["version"],
        release_sequence=release["sequence"],
    )
    return release_target(custom, release["manifest_sha256"], release["manifest_length"])


def path_of(release: Document) -> str:
    """Its target's name."""
    return release_path(release["model"], release["sequence"])
