"""Whether a proposal may take the place of what is published. Pure.

The same rules hold where signers look at a proposal and where the controller takes it: a root
follows the one before and is signed by both; targets and bins reach their threshold; versions
rise by one; nothing is taken out that is not named; and afterwards the whole verifies from the
root down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, SuccinctRoles, TargetFile, Targets

from shoal.errors import InvalidInputError, UntrustedError
from shoal.package import sha256
from shoal.protocol.targets import DIRECTOR_PATH, decode_director
from shoal.trust.keys import raw_key
from shoal.trust.metadata import Contents, bins_of, custom_of, role_keys
from shoal.trust.proposal import Proposal
from shoal.trust.roles import OFFLINE, ONLINE, ROLES, ROOT, SLACK, TARGETS, VALID, kind_of

MAX_THRESHOLD_KEYS = 32


def check(before: Contents | None, proposal: Proposal, now: datetime) -> Contents:
    """What is published after `proposal`; raises saying what does not hold.

    `before.bins` must hold the bins that the proposal replaces, and all of them when it brings
    new targets.
    """
    if before is None and (proposal.root is None or proposal.targets is None):
        raise InvalidInputError(
            "proposal: nothing is published yet, expected a first root and targets",
            code="no-root",
        )
    if not proposal.parts():
        raise InvalidInputError("proposal: holds nothing to publish", code="bad-proposal")
    _check_versions(before, proposal)
    for role, part in proposal.parts().items():
        _check_dates(role, part.signed.expires, now)
    root = _check_root(before, proposal)
    targets = _check_targets(before, proposal, root)
    bins = _check_bins(before, proposal, targets.signed)
    after = Contents(root, targets, bins)
    _check_losses(before, after, proposal.withdraws)
    return after


def check_chain(roots: Iterable[Metadata[Root]], trusted: Metadata[Root]) -> Metadata[Root]:
    """The newest of `roots`, followed from one that is trusted."""
    for one in sorted(roots, key=lambda one: one.signed.version):
        if one.signed.version <= trusted.signed.version:
            continue
        _check_follows(trusted, one)
        trusted = one
    return trusted


def check_whole(contents: Contents) -> None:
    """That targets and bins verify from the root down."""
    _verify(contents.root.signed, TARGETS, contents.targets, "the root")
    for name, one in contents.bins.items():
        _verify(contents.targets.signed, name, one, "targets")


def signatures_of(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> tuple[int, int]:
    """How many valid signatures it has, and how many it needs."""
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    return len(result.signed), result.threshold


def _check_versions(before: Contents | None, proposal: Proposal) -> None:
    published: dict[str, Metadata[Any]] = {}
    if before is not None:
        published = {ROOT: before.root, TARGETS: before.targets, **before.bins}
    for role, part in proposal.parts().items():
        expected = published[role].signed.version + 1 if role in published else 1
        if part.signed.version != expected:
            raise InvalidInputError(
                f"{role}: version {part.signed.version}, expected {expected}; "
                "something else was published meanwhile, make the proposal anew",
                code="wrong-version",
            )


def _check_dates(role: str, expires: datetime, now: datetime) -> None:
    most = now + VALID[kind_of(role)] + SLACK
    if not now < expires <= most:
        raise InvalidInputError(
            f"{role}: expires {expires.isoformat()}, expected after now and by {most.isoformat()}",
            code="wrong-expiry",
        )


def _check_root(before: Contents | None, proposal: Proposal) -> Metadata[Root]:
    root = proposal.root
    if root is None:
        assert before is not None
        return before.root
    _check_follows(None if before is None else before.root, root)
    if set(root.signed.roles) != set(ROLES) or root.signed.consistent_snapshot is not True:
        raise InvalidInputError(
            f"root {root.signed.version}: expected the four roles and consistent snapshots",
            code="bad-root",
        )
    keys = {role: set(role_keys(root.signed, role).keys) for role in ROLES}
    if max(len(found) for found in keys.values()) > MAX_THRESHOLD_KEYS:
        raise InvalidInputError(f"root: more than {MAX_THRESHOLD_KEYS} keys", code="bad-root")
    online = keys[ONLINE[0]] | keys[ONLINE[1]]
    if any(keys[role] & online for role in OFFLINE):
        raise InvalidInputError(
            f"root {root.signed.version}: a key of the controller must not sign root or targets",
            code="online-key",
        )
    return root


def _check_follows(before: Metadata[Root] | None, root: Metadata[Root]) -> None:
    version = root.signed.version
    if before is not None:
        if version != before.signed.version + 1:
            raise InvalidInputError(
                f"root {version}: expected {before.signed.version + 1}", code="wrong-version"
            )
        _verify(before.signed, ROOT, root, f"root {version - 1}")
    _verify(root.signed, ROOT, root, "itself")


def _check_targets(
    before: Contents | None, proposal: Proposal, root: Metadata[Root]
) -> Metadata[Targets]:
    targets = proposal.targets
    if targets is None:
        assert before is not None
        _verify(root.signed, TARGETS, before.targets, "the new root", "resign-targets")
        return before.targets
    _verify(root.signed, TARGETS, targets, "the root")
    succinct = bins_of(targets.signed)
    _check_delegation(root.signed, targets.signed, succinct)
    if before is not None and _shape(bins_of(before.targets.signed)) != _shape(succinct):
        raise InvalidInputError("targets: the number of bins may not change", code="bad-bins")
    unknown = sorted(set(targets.signed.targets) - {DIRECTOR_PATH})
    if unknown:
        raise InvalidInputError(
            f"targets: {unknown[0][:80]!r} does not belong there, releases stand in bins",
            code="bad-target-name",
        )
    _check_director(before, targets.signed, proposal.files)
    return targets


def _check_delegation(root: Root, targets: Targets, succinct: SuccinctRoles) -> None:
    """Bins are signed by whom the root names for targets: one list of people, not two."""
    wanted = role_keys(root, TARGETS)
    delegations = targets.delegations
    assert delegations is not None
    keys = {raw_key(delegations.keys[keyid]) for keyid in succinct.keyids}
    if keys != set(wanted.keys) or succinct.threshold != wanted.threshold or delegations.roles:
        raise InvalidInputError(
            "targets: bins must be delegated to exactly the keys of the root's targets role",
            code="bad-bins",
        )


def _shape(succinct: SuccinctRoles) -> tuple[int, str]:
    return succinct.bit_length, succinct.name_prefix


def _check_director(before: Contents | None, targets: Targets, files: Mapping[str, bytes]) -> None:
    target = targets.targets.get(DIRECTOR_PATH)
    if target is None:
        raise InvalidInputError(f"targets: {DIRECTOR_PATH} is missing", code="no-director")
    old = None if before is None else before.targets.signed.targets.get(DIRECTOR_PATH)
    if old is not None and _bytes_of(old) == _bytes_of(target):
        return
    data = files.get(DIRECTOR_PATH, b"")
    if (len(data), sha256(data)) != _bytes_of(target):
        raise InvalidInputError(
            f"{DIRECTOR_PATH}: the bytes sent are not those that were signed",
            code="digest-mismatch",
        )
    decode_director(data)


def _check_bins(
    before: Contents | None, proposal: Proposal, targets: Targets
) -> dict[str, Metadata[Targets]]:
    succinct = bins_of(targets)
    bins = {**({} if before is None else before.bins), **proposal.bins}
    for name in bins:
        if not succinct.is_delegated_role(name):
            raise InvalidInputError(f"bin {name[:80]!r}: is not known", code="bad-bins")
    if before is None and set(bins) != set(succinct.get_roles()):
        raise InvalidInputError(
            f"bins: {len(bins)}, expected all {succinct.number_of_bins}", code="bad-bins"
        )
    for name, one in bins.items():
        code = "under-signed" if name in proposal.bins else "resign-targets"
        _verify(targets, name, one, "targets", code)
    for name, one in proposal.bins.items():
        for path, target in one.signed.targets.items():
            _check_release(succinct, name, path, target)
    return bins


def _check_release(succinct: SuccinctRoles, name: str, path: str, target: TargetFile) -> None:
    custom_of(target)
    if path != target.path or succinct.get_role_for_target(path) != name:
        raise InvalidInputError(f"target {path[:120]}: stands in the wrong bin", code="bad-bins")
    if set(target.hashes) != {"sha256"} or target.length < 1:
        raise InvalidInputError(
            f"target {path[:120]}: expected a length and one sha256", code="bad-target"
        )


def _check_losses(before: Contents | None, after: Contents, withdraws: frozenset[str]) -> None:
    """Nothing is changed, and nothing is taken out that is not named."""
    lost = set()
    for name, one in ({} if before is None else before.bins).items():
        now = after.bins[name].signed.targets
        for path, target in one.signed.targets.items():
            if path not in now:
                lost.add(path)
            elif now[path] != target:
                raise InvalidInputError(
                    f"target {path}: is published with other bytes; give it another sequence",
                    code="changed-release",
                )
    if lost != withdraws:
        named = sorted(lost ^ withdraws)[0]
        what = "is taken out without being named" if named in lost else "is not published"
        raise InvalidInputError(f"target {named[:120]}: {what}", code="removed-release")


def _verify(
    delegator: Root | Targets,
    role: str,
    metadata: Metadata[Any],
    whom: str,
    code: str = "under-signed",
) -> None:
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (UnsignedMetadataError, ValueError) as error:
        try:
            found, needed = signatures_of(delegator, role, metadata)
        except ValueError:
            raise UntrustedError(f"{role}: {error}", code=code) from error
        raise UntrustedError(
            f"{role} {metadata.signed.version}: {found} of {needed} valid signatures by keys "
            f"that {whom} names",
            code=code,
        ) from error


def _bytes_of(target: TargetFile) -> tuple[int, str]:
    return target.length, target.hashes.get("sha256", "")
