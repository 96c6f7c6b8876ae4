"""What snapshot and timestamp follow from what is published and from the time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from shoal.package import sha256
from shoal.trust.metadata import encode
from shoal.trust.roles import ISSUED, SNAPSHOT, TIMESTAMP, VALID

TIMESTAMP_EVERY = timedelta(hours=1)
SNAPSHOT_BEFORE = timedelta(days=3)
"""So long before it ends, a snapshot is signed anew."""


@dataclass(frozen=True, slots=True)
class Due:
    """Which online roles are to be signed anew."""

    snapshot: bool
    timestamp: bool


def find_due(
    snapshot: Metadata[Snapshot] | None,
    timestamp: Metadata[Timestamp] | None,
    versions: Mapping[str, int],
    now: datetime,
    signers: Mapping[str, str],
) -> Due:
    """What is due at `now`; `signers` names the key of each online role."""
    renew = (
        snapshot is None
        or listed(snapshot) != dict(versions)
        or snapshot.signed.expires - now < SNAPSHOT_BEFORE
        or signers[SNAPSHOT] not in snapshot.signatures
    )
    stamp = (
        renew
        or timestamp is None
        or snapshot is None
        or timestamp.signed.snapshot_meta.version != snapshot.signed.version
        or now - issued(timestamp) >= TIMESTAMP_EVERY
        or signers[TIMESTAMP] not in timestamp.signatures
    )
    return Due(renew, stamp)


def next_snapshot(
    before: Metadata[Snapshot] | None, versions: Mapping[str, int], now: datetime
) -> Snapshot:
    """A snapshot that lists the current versions; without hashes, as each is signed for itself."""
    return Snapshot(
        version=1 if before is None else before.signed.version + 1,
        expires=now + VALID[SNAPSHOT],
        meta={f"{role}.json": MetaFile(versions[role]) for role in sorted(versions)},
    )


def next_timestamp(
    before: Metadata[Timestamp] | None, snapshot: Metadata[Snapshot], now: datetime
) -> Timestamp:
    """A timestamp of a snapshot; its signed time never goes back, whatever the clock does."""
    if before is not None:
        now = max(now, issued(before))
    data = encode(snapshot)
    meta = MetaFile(snapshot.signed.version, len(data), {"sha256": sha256(data)})
    return Timestamp(
        version=1 if before is None else before.signed.version + 1,
        expires=now + VALID[TIMESTAMP],
        snapshot_meta=meta,
        unrecognized_fields={ISSUED: now.strftime("%Y-%m-%dT%H:%M:%SZ")},
    )


def listed(snapshot: Metadata[Snapshot]) -> dict[str, int]:
    """Versions that a snapshot lists, by role."""
    return {name.removesuffix(".json"): one.version for name, one in snapshot.signed.meta.items()}


def issued(timestamp: Metadata[Timestamp]) -> datetime:
    """When a timestamp was signed."""
    text = str(timestamp.signed.unrecognized_fields[ISSUED])
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
