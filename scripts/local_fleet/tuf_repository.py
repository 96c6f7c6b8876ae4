"""A TUF repository as files, made and signed with keys in memory, for tests of those who follow it.

    repository = TufRepository(folder)
    repository.release("pump", "1.0", 1, manifest_bytes)
    repository.folder / "metadata" / "timestamp.json"

What stands in `folder` is what a controller serves below `/repository`: `metadata/` and `files/`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tuf.api.metadata import Metadata

from controller.repository import online
from shoal.package import sha256
from shoal.protocol.targets import DirectorKeys, ReleaseTarget
from shoal.signing import FileSigner
from shoal.trust import ceremony
from shoal.trust.check import check
from shoal.trust.metadata import Contents, RoleKeys, encode, release_target, sign
from shoal.trust.proposal import Proposal
from shoal.trust.roles import ROLES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP


class TufRepository:
    """Keys, what is published, and the folder it is written to."""

    def __init__(
        self,
        folder: Path,
        *,
        director: FileSigner | None = None,
        bin_bits: int = 2,
        now: datetime | None = None,
    ) -> None:
        self.folder = folder
        self.now = now or datetime.now(UTC)
        self.signers = {role: FileSigner.generate() for role in ROLES}
        self.director = director or FileSigner.generate()
        roles = {role: RoleKeys((key.public_key,)) for role, key in self.signers.items()}
        keys = DirectorKeys(keys=[self.director.public_key])
        self._contents: Contents | None = None
        self.snapshot: Metadata[online.Snapshot] | None = None
        self.timestamp: Metadata[online.Timestamp] | None = None
        for name in ("metadata", "files"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.publish(ceremony.propose_first(roles, keys, self.now, bin_bits))

    @property
    def contents(self) -> Contents:
        """Root, targets and bins as published."""
        assert self._contents is not None
        return self._contents

    @property
    def root(self) -> bytes:
        """The newest root, as an enrolment answer carries it."""
        return encode(self.contents.root)

    def release(self, model: str, version: str, sequence: int, manifest: bytes) -> None:
        """Publish a release whose target is these bytes."""
        self.put(manifest)
        custom = ReleaseTarget(model=model, version=version, release_sequence=sequence)
        target = release_target(custom, sha256(manifest), len(manifest))
        self.publish(ceremony.propose_releases(self.contents, [target], self.now))

    def put(self, data: bytes) -> str:
        """Serve a file by its hash."""
        digest = sha256(data)
        (self.folder / "files" / digest).write_bytes(data)
        return digest

    def rotate(self, role: str) -> FileSigner:
        """Give a role a new key, with a root signed by old and new; return the old key."""
        old = self.signers[role]
        new = {**self.signers, role: FileSigner.generate()}
        keys = {role: RoleKeys((new[role].public_key,))}
        proposal = ceremony.propose_keys(self.contents, self.now, keys)
        if role == ROOT:
            ceremony.sign_proposal(self.contents, proposal, old)
        self.signers = new
        self.publish(proposal)
        return old

    def publish(self, proposal: Proposal) -> None:
        """Sign a proposal, take it, and write it with a fresh snapshot and timestamp."""
        wanted = {ROOT} if proposal.root else set()
        if proposal.targets or proposal.bins:
            wanted.add(TARGETS)
        for role in sorted(wanted):
            ceremony.sign_proposal(self._contents, proposal, self.signers[role])
        self._contents = check(self._contents, proposal, self.now)
        for data in proposal.files.values():
            self.put(data)
        for role, part in proposal.parts().items():
            self.write(f"{part.signed.version}.{role}.json", encode(part))
        self.resign(self.now)

    def resign(self, now: datetime) -> None:
        """Sign snapshot and timestamp as of `now`."""
        bins = {name: one.signed.version for name, one in self.contents.bins.items()}
        versions = {TARGETS: self.contents.targets.signed.version, **bins}
        made = Metadata(online.next_snapshot(self.snapshot, versions, now))
        self.snapshot = sign(made, self.signers[SNAPSHOT])
        stamp = Metadata(online.next_timestamp(self.timestamp, self.snapshot, now))
        self.timestamp = sign(stamp, self.signers[TIMESTAMP])
        self.write(f"{self.snapshot.signed.version}.snapshot.json", encode(self.snapshot))
        self.write("timestamp.json", encode(self.timestamp))

    def write(self, name: str, data: bytes) -> None:
        """Serve metadata under a name: also what no honest repository would serve."""
        (self.folder / "metadata" / name).write_bytes(data)
