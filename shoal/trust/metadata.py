"""What metadata follows from releases, keys and the metadata before. Pure: no clock, no file.

Every function returns new, unsigned metadata with the next version; `sign` adds a signature.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    Delegations,
    Metadata,
    Role,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from shoal.errors import InvalidInputError
from shoal.package import sha256
from shoal.protocol.targets import (
    DIRECTOR_PATH,
    DirectorKeys,
    ReleaseTarget,
    encode_director,
    release_path,
)
from shoal.signing import PublicKey, Signer
from shoal.trust.keys import TufSigner, raw_key, tuf_key
from shoal.trust.roles import (
    BIN_PREFIX,
    DEFAULT_BIN_BITS,
    MAX_BYTES,
    ROLES,
    ROOT,
    TARGETS,
    VALID,
    kind_of,
)

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)

_MALFORMED = (
    RepositoryError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError,
)  # fmt: skip
"""All that python-tuf raises on what is no metadata."""


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who signs for a role, and how many of them must."""

    keys: tuple[PublicKey, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(set(self.keys)):
            raise InvalidInputError(
                f"threshold {self.threshold}: expected 1 to {len(set(self.keys))}, the number of "
                "different keys",
                code="bad-threshold",
            )


@dataclass(frozen=True, slots=True)
class Contents:
    """What offline signers answer for, as published."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    bins: dict[str, Metadata[Targets]] = field(default_factory=dict)


def new_root(before: Metadata[Root] | None, roles: Mapping[str, RoleKeys], now: datetime) -> Root:
    """The root after `before` with `roles` changed; the first one names all four."""
    held = {} if before is None else {role: role_keys(before.signed, role) for role in ROLES}
    wanted = {**held, **roles}
    root = Root(
        version=1 if before is None else before.signed.version + 1,
        expires=now + VALID[ROOT],
        consistent_snapshot=True,
        roles={role: Role([], wanted[role].threshold) for role in ROLES},
    )
    for role in ROLES:
        for key in wanted[role].keys:
            root.add_key(tuf_key(key), role)
    return root


def role_keys(root: Root, role: str) -> RoleKeys:
    """Keys and threshold that a root names for a role."""
    found = root.roles[role]
    return RoleKeys(tuple(raw_key(root.keys[keyid]) for keyid in found.keyids), found.threshold)


def new_targets(
    before: Metadata[Targets] | None,
    root: Root,
    now: datetime,
    director: DirectorKeys | None = None,
    bin_bits: int = DEFAULT_BIN_BITS,
) -> Targets:
    """Targets that name the director's keys and delegate releases to bins, with the root's keys."""
    keys = role_keys(root, TARGETS)
    if before is not None and before.signed.delegations is not None:
        succinct = before.signed.delegations.succinct_roles
        bin_bits = succinct.bit_length if succinct is not None else bin_bits
    named = [tuf_key(key) for key in keys.keys]
    delegations = Delegations(
        {key.keyid: key for key in named},
        succinct_roles=SuccinctRoles(
            [key.keyid for key in named], keys.threshold, bin_bits, BIN_PREFIX
        ),
    )
    targets = {} if before is None else copy.deepcopy(before.signed.targets)
    if director is not None:
        data = encode_director(director)
        targets[DIRECTOR_PATH] = TargetFile(len(data), {"sha256": sha256(data)}, DIRECTOR_PATH)
    return Targets(
        version=1 if before is None else before.signed.version + 1,
        expires=now + VALID[TARGETS],
        targets=targets,
        delegations=delegations,
    )


def new_bin(
    before: Metadata[Targets] | None,
    now: datetime,
    add: Iterable[TargetFile] = (),
    remove: Iterable[str] = (),
) -> Targets:
    """A bin after `before` with releases added, or taken out."""
    targets = {} if before is None else copy.deepcopy(before.signed.targets)
    targets |= {one.path: one for one in add}
    for path in remove:
        targets.pop(path, None)
    return Targets(
        version=1 if before is None else before.signed.version + 1,
        expires=now + VALID[TARGETS],
        targets=targets,
    )


def release_target(custom: ReleaseTarget, manifest_sha256: str, manifest_length: int) -> TargetFile:
    """A release as a target: its bytes are the package's manifest."""
    return TargetFile(
        manifest_length,
        {"sha256": manifest_sha256},
        release_path(custom.model, custom.release_sequence),
        {"custom": msgspec.to_builtins(custom)},
    )


def custom_of(target: TargetFile) -> ReleaseTarget:
    """What a release's target says of it, agreeing with its name."""
    try:
        found = msgspec.convert(target.custom, ReleaseTarget)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"target {target.path}: {error}", code="bad-target") from error
    if target.path != release_path(found.model, found.release_sequence):
        raise InvalidInputError(
            f"target {target.path}: says that it is {found.model} {found.release_sequence}",
            code="bad-target",
        )
    return found


def bins_of(targets: Targets) -> SuccinctRoles:
    """How releases are spread over bins."""
    found = targets.delegations.succinct_roles if targets.delegations is not None else None
    if found is None:
        raise InvalidInputError("targets: expected hash bins, got none", code="bad-bins")
    return found


def sign(metadata: Metadata[T], *signers: Signer) -> Metadata[T]:
    """Add signatures."""
    for signer in signers:
        metadata.sign(TufSigner(signer), append=True)
    return metadata


def encode(metadata: Metadata[T]) -> bytes:
    """The bytes that are served."""
    return metadata.to_bytes(JSONSerializer(compact=True))


def decode(data: bytes, kind: type[T], role: str) -> Metadata[T]:
    """Read metadata of a role; every malformed input is one `InvalidInputError`."""
    most = MAX_BYTES[kind_of(role)]
    if len(data) > most:
        raise InvalidInputError(f"{role}: {len(data)} bytes, at most {most}", code="too-large")
    try:
        found = Metadata[T].from_bytes(data)
        found.signed_bytes  # noqa: B018 - what has no canonical form could not be verified
    except _MALFORMED as error:
        raise InvalidInputError(f"{role}: is no metadata: {error}", code="bad-metadata") from error
    if not isinstance(found.signed, kind):
        raise InvalidInputError(
            f"{role}: expected {kind.type} metadata, got {found.signed.type}", code="wrong-type"
        )
    return found
