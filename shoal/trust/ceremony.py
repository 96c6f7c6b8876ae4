"""Making proposals and signing them: what `shoal keys`, `trust` and `release` do. Pure.

A proposal is made from what is published, signed by whoever is needed, on one machine or on
several, and taken by the controller once every threshold is reached.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from shoal.errors import InvalidInputError, UntrustedError
from shoal.package import sha256
from shoal.protocol.targets import DIRECTOR_PATH, DirectorKeys, encode_director
from shoal.signing import PublicKey, Signer, key_id
from shoal.trust.check import check_chain, check_whole, signatures_of
from shoal.trust.metadata import (
    Contents,
    RoleKeys,
    bins_of,
    new_bin,
    new_root,
    new_targets,
    role_keys,
    sign,
)
from shoal.trust.proposal import Base, Proposal
from shoal.trust.roles import DEFAULT_BIN_BITS, ROOT, TARGETS


@dataclass(frozen=True, slots=True)
class Missing:
    """Signatures that a part of a proposal still needs."""

    role: str
    found: int
    needed: int


def propose_first(
    roles: Mapping[str, RoleKeys],
    director: DirectorKeys,
    now: datetime,
    bin_bits: int = DEFAULT_BIN_BITS,
) -> Proposal:
    """The first root, targets and empty bins."""
    root = Metadata(new_root(None, roles, now))
    targets = Metadata(new_targets(None, root.signed, now, director, bin_bits))
    names = bins_of(targets.signed).get_roles()
    bins = {name: Metadata(new_bin(None, now)) for name in names}
    return Proposal(root, targets, bins, {DIRECTOR_PATH: encode_director(director)})


def propose_releases(
    contents: Contents, add: Iterable[TargetFile], now: datetime, withdraw: Collection[str] = ()
) -> Proposal:
    """Releases that come, or go; only their bins change."""
    succinct = bins_of(contents.targets.signed)
    coming: dict[str, list[TargetFile]] = {}
    for one in add:
        coming.setdefault(succinct.get_role_for_target(one.path), []).append(one)
    names = sorted({*coming, *map(succinct.get_role_for_target, withdraw)})
    bins = {
        name: Metadata(new_bin(contents.bins[name], now, coming.get(name, ()), withdraw))
        for name in names
    }
    return Proposal(bins=bins, withdraws=frozenset(withdraw))


def propose_keys(
    contents: Contents,
    now: datetime,
    roles: Mapping[str, RoleKeys] | None = None,
    director: DirectorKeys | None = None,
) -> Proposal:
    """Other keys: a root if a role changes; targets and bins if those who sign them do."""
    root = Metadata(new_root(contents.root, roles, now)) if roles else None
    files = {} if director is None else {DIRECTOR_PATH: encode_director(director)}
    if director is None and TARGETS not in (roles or {}):
        return Proposal(root=root)
    signed = (root or contents.root).signed
    targets = Metadata(new_targets(contents.targets, signed, now, director))
    bins = _renewed(contents, now) if TARGETS in (roles or {}) else {}
    return Proposal(root, targets, bins, files)


def propose_renewal(contents: Contents, now: datetime, roles: Collection[str]) -> Proposal:
    """The same again, valid from now: of root, of targets with all bins, or of both."""
    root = Metadata(new_root(contents.root, {}, now)) if ROOT in roles else None
    if TARGETS not in roles:
        return Proposal(root=root)
    signed = (root or contents.root).signed
    targets = Metadata(new_targets(contents.targets, signed, now))
    return Proposal(root, targets, _renewed(contents, now))


def verify_base(base: Base, trusted: Metadata[Root] | None) -> Contents | None:
    """What is published, verified: from a root that the signer trusts, down to each bin.

    A controller that lies about what is published could otherwise have anything signed as if
    it had been there before.
    """
    if trusted is not None and not base.roots:
        raise UntrustedError("published metadata: holds no root", code="wrong-root")
    if not base.roots:
        return None
    newest = base.roots[-1]
    if trusted is not None:
        found = check_chain(base.roots, trusted)
        if found.signed != newest.signed:
            raise UntrustedError(
                f"published root {newest.signed.version}: does not follow from the root "
                f"{trusted.signed.version} that this signer trusts",
                code="wrong-root",
            )
    contents = base.contents()
    if contents is None:
        raise UntrustedError("published metadata: holds no targets", code="bad-proposal")
    check_whole(contents)
    target = contents.targets.signed.targets[DIRECTOR_PATH]
    if sha256(base.files.get(DIRECTOR_PATH, b"")) != target.hashes["sha256"]:
        raise UntrustedError(
            f"{DIRECTOR_PATH}: the bytes given are not those that were signed",
            code="digest-mismatch",
        )
    return contents


def sign_proposal(contents: Contents | None, proposal: Proposal, signer: Signer) -> list[str]:
    """Sign every part that this key is named for; return their roles."""
    signed = []
    for role, part in proposal.parts().items():
        if signer.public_key in _may_sign(contents, proposal, role):
            sign(part, signer)
            signed.append(role)
    if not signed:
        raise InvalidInputError(
            f"key {key_id(signer.public_key)[:12]}…: is named for nothing in this proposal",
            code="wrong-key",
        )
    return signed


def find_missing(contents: Contents | None, proposal: Proposal) -> list[Missing]:
    """Thresholds that are not reached yet."""
    root = proposal.root or (contents.root if contents else None)
    targets = proposal.targets or (contents.targets if contents else None)
    assert root is not None
    assert targets is not None
    found = []
    for role, part in proposal.parts().items():
        delegators: list[Any] = [targets.signed]
        if role == TARGETS:
            delegators = [root.signed]
        elif role == ROOT:
            delegators = [root.signed, *([contents.root.signed] if contents else [])]
        for delegator in delegators:
            have, need = signatures_of(delegator, role, part)
            if have < need:
                found.append(Missing(role, have, need))
    return found


def _may_sign(contents: Contents | None, proposal: Proposal, role: str) -> set[PublicKey]:
    roots = [one for one in (proposal.root, contents.root if contents else None) if one]
    if role == ROOT:
        return {key for one in roots for key in role_keys(one.signed, ROOT).keys}
    return set(role_keys(roots[0].signed, TARGETS).keys)


def _renewed(contents: Contents, now: datetime) -> dict[str, Metadata[Targets]]:
    return {name: Metadata(new_bin(one, now)) for name, one in sorted(contents.bins.items())}
