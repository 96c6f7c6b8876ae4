"""Keys and contents in memory; the helper of the fleet's rigs lives in `scripts/`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.metadata import TargetFile

from shoal.package import sha256
from shoal.protocol.targets import DirectorKeys, ReleaseTarget, encode_director
from shoal.signing import FileSigner
from shoal.trust import ceremony
from shoal.trust.check import check
from shoal.trust.metadata import Contents, RoleKeys, release_target
from shoal.trust.proposal import Proposal
from shoal.trust.roles import ROLES, ROOT, TARGETS

SCRIPTS = str(Path(__file__).resolve().parents[3] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Site:
    """All keys of a repository, and what is published in it."""

    keys: dict[str, list[FileSigner]]
    director: FileSigner
    contents: Contents
    now: datetime = NOW
    thresholds: dict[str, int] = field(default_factory=dict)

    @property
    def director_bytes(self) -> bytes:
        """The target that names the director's key."""
        return encode_director(DirectorKeys(keys=[self.director.public_key]))

    def signed(self, proposal: Proposal, *signers: FileSigner) -> Proposal:
        """Signed by these, or by everybody who may."""
        everybody = [*self.keys[ROOT], *self.keys[TARGETS]]
        for one in signers or everybody:
            mine = (proposal.root is not None and one in self.keys[ROOT]) or (
                (proposal.targets is not None or proposal.bins) and one in self.keys[TARGETS]
            )
            if mine or signers:
                ceremony.sign_proposal(self.contents, proposal, one)
        return proposal

    def take(self, proposal: Proposal) -> Contents:
        """Publish it."""
        self.contents = check(self.contents, proposal, self.now)
        return self.contents

    def release(self, model: str = "pump", sequence: int = 1, data: bytes = b"m") -> TargetFile:
        """A release's target."""
        custom = ReleaseTarget(model=model, version=f"{sequence}.0", release_sequence=sequence)
        return release_target(custom, sha256(data), len(data))

    def propose(self, *targets: TargetFile) -> Proposal:
        """Releases, not signed."""
        return ceremony.propose_releases(self.contents, targets, self.now)


@pytest.fixture
def make_site() -> Callable[..., Site]:
    """`make_site(root=(2, 3), targets=(1, 1))`: a repository with thresholds k of n."""

    def make(bin_bits: int = 2, **of: tuple[int, int]) -> Site:
        sizes = {role: of.get(role, (1, 1)) for role in ROLES}
        keys = {role: [FileSigner.generate() for _ in range(n)] for role, (_, n) in sizes.items()}
        roles = {
            role: RoleKeys(tuple(one.public_key for one in keys[role]), k)
            for role, (k, _) in sizes.items()
        }
        director = FileSigner.generate()
        proposal = ceremony.propose_first(
            roles, DirectorKeys(keys=[director.public_key]), NOW, bin_bits
        )
        for one in (*keys[ROOT], *keys[TARGETS]):
            ceremony.sign_proposal(None, proposal, one)
        contents = check(None, proposal, NOW)
        return Site(keys, director, contents)

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """One key a role."""
    return make_site()
