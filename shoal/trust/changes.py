"""What a proposal changes, as values and in words for those who sign it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuf.api.metadata import Metadata, TargetFile, Targets

from shoal.protocol.targets import DIRECTOR_PATH, DirectorKeys, decode_director
from shoal.signing import key_id
from shoal.trust.metadata import Contents, custom_of, role_keys
from shoal.trust.proposal import Proposal
from shoal.trust.roles import ROLES

MAX_WORDS = 200


@dataclass(frozen=True, slots=True)
class Changes:
    """Releases that come and go; whether keys change."""

    added: tuple[TargetFile, ...] = ()
    removed: tuple[TargetFile, ...] = ()
    root: bool = False
    director: bool = False


def find_changes(before: Contents | None, proposal: Proposal) -> Changes:
    """Compare a proposal with what is published."""
    old: dict[str, TargetFile] = {}
    new: dict[str, TargetFile] = {}
    for name, one in proposal.bins.items():
        new |= one.signed.targets
        if before is not None and name in before.bins:
            old |= before.bins[name].signed.targets
    return Changes(
        added=tuple(new[path] for path in sorted(new) if path not in old),
        removed=tuple(old[path] for path in sorted(old) if path not in new),
        root=proposal.root is not None,
        director=_director(before.targets if before else None) != _director(proposal.targets)
        and proposal.targets is not None,
    )


def describe(before: Contents | None, proposal: Proposal) -> list[str]:
    """What a signer signs, a line each."""
    changes = find_changes(before, proposal)
    lines = [_release_words("release", one) for one in changes.added]
    lines += [_release_words("WITHDRAW", one) for one in changes.removed]
    if proposal.root is not None:
        lines += _root_words(before, proposal)
    if changes.director:
        lines += _director_words(decode_director(proposal.files[DIRECTOR_PATH]))
    renewed = len(proposal.bins) - len({*_paths(proposal.bins, changes)})
    for role, part in proposal.parts().items():
        if role in ("root", "targets"):
            lines.append(
                f"{role} {part.signed.version}, valid until {part.signed.expires:%Y-%m-%d}"
            )
    if renewed and not lines:
        lines.append("no release changes")
    lines.append(f"{len(proposal.bins)} lists of releases signed anew")
    return lines[:MAX_WORDS]


def _paths(bins: Mapping[str, Metadata[Targets]], changes: Changes) -> set[str]:
    touched = {one.path for one in (*changes.added, *changes.removed)}
    return {name for name, one in bins.items() if touched & set(one.signed.targets)}


def _release_words(verb: str, target: TargetFile) -> str:
    custom = custom_of(target)
    return (
        f"{verb} {custom.model} {custom.version} (sequence {custom.release_sequence}), "
        f"manifest {target.length:,} bytes, sha256 {target.hashes['sha256']}"
    )


def _root_words(before: Contents | None, proposal: Proposal) -> list[str]:
    assert proposal.root is not None
    root = proposal.root.signed
    lines = []
    for role in ROLES:
        new = role_keys(root, role)
        old = role_keys(before.root.signed, role) if before is not None else None
        if old is not None and (set(old.keys), old.threshold) == (set(new.keys), new.threshold):
            continue
        gone = set(old.keys) - set(new.keys) if old is not None else set()
        come = set(new.keys) - set(old.keys) if old is not None else set(new.keys)
        words = [f"adds key {key_id(key)}" for key in sorted(come)]
        words += [f"REMOVES key {key_id(key)}" for key in sorted(gone)]
        lines.append(
            f"role {role}: {new.threshold} of {len(new.keys)} keys sign; " + ", ".join(words)
        )
    return lines


def _director_words(keys: DirectorKeys) -> list[str]:
    names = ", ".join(key_id(key) for key in keys.keys)
    return [
        f"director: {keys.threshold} of {len(keys.keys)} keys may say what devices run: {names}",
        f"director: messages valid for at most {keys.max_validity_seconds} s, "
        f"numbered {keys.min_sequence} or more",
    ]


def _director(targets: Metadata[Targets] | None) -> TargetFile | None:
    return None if targets is None else targets.signed.targets.get(DIRECTOR_PATH)
