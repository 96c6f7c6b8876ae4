"""A proposal: new offline metadata, on its way from signer to signer and to the controller.

As a file it also carries what is published now (`base`), signed, so that a signer on another
machine can see what changes and need not believe whoever made the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from tuf.api.metadata import Metadata, Root, Targets

from shoal.errors import InvalidInputError
from shoal.trust.metadata import Contents, decode, encode
from shoal.trust.roles import ROOT, TARGETS

SCHEMA = 1
MAX_PROPOSAL_BYTES = 16 * 1024 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_BINS = 4096

_T = TypeVar("_T", bound=Struct)
_NOTHING = Raw(b"null")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What shall take the place of what is published; what it does not name stays."""

    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    bins: dict[str, Metadata[Targets]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Bytes of targets that are no releases: `trust/director.json`."""
    withdraws: frozenset[str] = frozenset()
    """Targets that it takes out; nothing else may be missing afterwards."""

    def parts(self) -> dict[str, Metadata[Any]]:
        """All its metadata by role."""
        found: dict[str, Metadata[Any]] = dict(self.bins)
        if self.targets is not None:
            found[TARGETS] = self.targets
        if self.root is not None:
            found[ROOT] = self.root
        return found


@dataclass(frozen=True, slots=True)
class Base:
    """What is published: every root, and targets and bins that a change begins from."""

    roots: tuple[Metadata[Root], ...] = ()
    targets: Metadata[Targets] | None = None
    bins: dict[str, Metadata[Targets]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Bytes of targets that are no releases."""

    def contents(self) -> Contents | None:
        """As the rules look at it; None before the first root."""
        if not self.roots or self.targets is None:
            return None
        return Contents(self.roots[-1], self.targets, self.bins)


class ProposalDocument(Struct, kw_only=True, forbid_unknown_fields=True):
    """A proposal as JSON: metadata stands in it as it is served."""

    schema: int = SCHEMA
    root: Raw = _NOTHING
    targets: Raw = _NOTHING
    bins: dict[str, Raw] = {}
    files: dict[str, bytes] = {}
    withdraws: list[str] = []


class BaseDocument(Struct, kw_only=True):
    """What is published, as JSON."""

    roots: list[Raw] = []
    targets: Raw = _NOTHING
    bins: dict[str, Raw] = {}
    files: dict[str, bytes] = {}


class ProposalFile(Struct, kw_only=True):
    """The file that goes from signer to signer."""

    schema: int = SCHEMA
    base: BaseDocument
    proposal: ProposalDocument


def encode_proposal(proposal: Proposal) -> bytes:
    """As it is sent to the controller."""
    return msgspec.json.encode(_document(proposal))


def decode_proposal(data: bytes) -> Proposal:
    """Read what somebody sent; every malformed input is one `InvalidInputError`."""
    if len(data) > MAX_PROPOSAL_BYTES:
        raise InvalidInputError(
            f"proposal: {len(data)} bytes, at most {MAX_PROPOSAL_BYTES}", code="too-large"
        )
    return _proposal(_decode(data, ProposalDocument, "proposal"))


def encode_base(base: Base) -> bytes:
    """As the controller gives it."""
    return msgspec.json.encode(_base_document(base))


def decode_base(data: bytes) -> Base:
    """Read what the controller gave."""
    return _base(_decode(data, BaseDocument, "published metadata"))


def encode_file(base: Base, proposal: Proposal) -> bytes:
    """The file for other signers."""
    found = ProposalFile(base=_base_document(base), proposal=_document(proposal))
    return msgspec.json.encode(found)


def read_file(path: Path) -> tuple[Base, Proposal]:
    """Read a file that a signer was given."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidInputError(f"{path}: more than {MAX_FILE_BYTES} bytes", code="too-large")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"proposal file {path}: {error.strerror}") from error
    found = _decode(data, ProposalFile, f"proposal file {path.name}")
    return _base(found.base), _proposal(found.proposal)


def _decode(data: bytes, kind: type[_T], what: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{what}: {error}", code="bad-proposal") from error


def _document(proposal: Proposal) -> ProposalDocument:
    return ProposalDocument(
        root=_raw(proposal.root),
        targets=_raw(proposal.targets),
        bins=_raws(proposal.bins),
        files=proposal.files,
        withdraws=sorted(proposal.withdraws),
    )


def _base_document(base: Base) -> BaseDocument:
    return BaseDocument(
        roots=[Raw(encode(one)) for one in base.roots],
        targets=_raw(base.targets),
        bins=_raws(base.bins),
        files=base.files,
    )


def _proposal(found: ProposalDocument) -> Proposal:
    if found.schema != SCHEMA:
        raise InvalidInputError(
            f"proposal: schema {found.schema}, expected {SCHEMA}", code="bad-proposal"
        )
    return Proposal(
        root=None if bytes(found.root) == b"null" else decode(bytes(found.root), Root, ROOT),
        targets=_targets(found.targets),
        bins=_bins(found.bins),
        files=dict(found.files),
        withdraws=frozenset(found.withdraws),
    )


def _base(found: BaseDocument) -> Base:
    return Base(
        roots=tuple(decode(bytes(one), Root, ROOT) for one in found.roots),
        targets=_targets(found.targets),
        bins=_bins(found.bins),
        files=dict(found.files),
    )


def _targets(raw: Raw) -> Metadata[Targets] | None:
    return None if bytes(raw) == b"null" else decode(bytes(raw), Targets, TARGETS)


def _bins(raws: Mapping[str, Raw]) -> dict[str, Metadata[Targets]]:
    if len(raws) > MAX_BINS:
        raise InvalidInputError(f"proposal: {len(raws)} bins, at most {MAX_BINS}", code="too-large")
    return {name: decode(bytes(raw), Targets, name[:80]) for name, raw in raws.items()}


def _raw(metadata: Metadata[Any] | None) -> Raw:
    return _NOTHING if metadata is None else Raw(encode(metadata))


def _raws(bins: Mapping[str, Metadata[Targets]]) -> dict[str, Raw]:
    return {name: Raw(encode(one)) for name, one in bins.items()}
