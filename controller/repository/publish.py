"""Taking a proposal of the offline signers: check it, store it, sign snapshot and timestamp.

All in one transaction, with the audit's row: a controller that dies in the middle has published
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, update
from tuf.api.metadata import Metadata, TargetFile, Targets

from controller import audit
from controller.database import reading, writing
from controller.errors import ConflictError, ForbiddenError
from controller.ingest.write import upsert
from controller.people.person import Person
from controller.people.roles import ADMIN
from controller.repository import store
from controller.repository.director_key import choose_director, sign_all_anew
from controller.repository.resign import freshen, online_signers
from controller.repository.status import describe_status
from controller.schema import files, published_releases, releases
from controller.services import Services
from shoal.package import sha256
from shoal.protocol.targets import DIRECTOR_PATH, decode_director
from shoal.signing import FileSigner
from shoal.trust.changes import Changes, describe, find_changes
from shoal.trust.check import check
from shoal.trust.metadata import Contents, bins_of, custom_of
from shoal.trust.proposal import Base, Proposal

Document = dict[str, Any]


def publish(services: Services, proposal: Proposal, person: Person) -> Document:
    """Make a proposal what devices see, or raise saying what does not hold."""
    _check_person(proposal, person)
    for data in proposal.files.values():
        services.artifacts.put(data)  # named by its hash: nothing points to it unless this holds
    now_ms = services.now_ms()
    now = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    with writing(services.engine, durable=True) as connection:
        bins = None if proposal.targets is not None else set(proposal.bins)
        before = store.contents(connection, bins)
        after = check(before, proposal, now)
        changes = find_changes(before, proposal)
        _check_online(services, after)
        signer = _director_of(services, proposal) if changes.director else None
        if signer is not None and signer.public_key != services.director.public_key:
            sign_all_anew(connection)
        _add_releases(connection, after, changes, now_ms, person.name)
        for path, data in proposal.files.items():
            if path == DIRECTOR_PATH:
                upsert(connection, files, {"sha256": sha256(data)}, {"length": len(data)})
        for role, part in proposal.parts().items():
            store.put(connection, role, part, now_ms)
        freshen(connection, services.keyring, now, after.root)
        _record(connection, before, proposal, changes, now_ms, person.name)
    if signer is not None and services.director.use(signer):
        services.desired_changed.ring()
    with reading(services.engine) as connection:
        return describe_status(connection, services.keyring, now)


def read_base(services: Services, connection: Connection, bins: set[str] | None) -> Base:
    """What is published, for who makes a proposal; with these bins (None: all)."""
    found = store.contents(connection, bins)
    if found is None:
        return Base()
    digest = found.targets.signed.targets[DIRECTOR_PATH].hashes["sha256"]
    files_ = {DIRECTOR_PATH: services.artifacts.path(digest).read_bytes()}
    return Base(store.roots(connection), found.targets, found.bins, files_)


def bin_of(connection: Connection, path: str) -> str | None:
    """Which bin a release belongs to; None before the first root."""
    found = store.contents(connection, [])
    return None if found is None else bins_of(found.targets.signed).get_role_for_target(path)


def _check_person(proposal: Proposal, person: Person) -> None:
    """Releases are for releasers; who may sign at all is for admins."""
    if (proposal.root is not None or proposal.files) and not person.may(ADMIN):
        raise ForbiddenError(
            f"trust: new keys need the role {ADMIN}; {person.name} has {person.role}"
        )


def _check_online(services: Services, after: Contents) -> None:
    """A root whose snapshot we cannot sign would end the repository."""
    online_signers(services.keyring, after.root)


def _director_of(services: Services, proposal: Proposal) -> FileSigner:
    return choose_director(services.keyring, decode_director(proposal.files[DIRECTOR_PATH]))


def _add_releases(
    connection: Connection, after: Contents, changes: Changes, now_ms: int, actor: str
) -> None:
    succinct = bins_of(after.targets.signed)
    for target in changes.added:
        _check_uploaded(connection, target)
        name = succinct.get_role_for_target(target.path)
        custom = custom_of(target)
        values = {
            "bin": name,
            "signers": valid_signers(after.targets, name, after.bins[name]),
            "published_ms": now_ms,
            "published_by": actor,
            "withdrawn_ms": None,
        }
        here = {"model": custom.model, "sequence": custom.release_sequence}
        upsert(connection, published_releases, here, values)
    for target in changes.removed:
        custom = custom_of(target)
        c = published_releases.c
        same = (c.model == custom.model) & (c.sequence == custom.release_sequence)
        connection.execute(update(published_releases).where(same).values(withdrawn_ms=now_ms))


def _check_uploaded(connection: Connection, target: TargetFile) -> None:
    """Devices must be able to fetch what is published: the package is here, and is this one."""
    custom = custom_of(target)
    query = select(
        releases.c.version, releases.c.manifest_sha256, releases.c.manifest_length
    ).where(releases.c.model == custom.model, releases.c.sequence == custom.release_sequence)
    row = connection.execute(query).first()
    signed = (custom.version, target.hashes["sha256"], target.length)
    if row is None or tuple(row) != signed:
        found = "no such package" if row is None else f"{row[0]}, manifest {row[1][:12]}…"
        raise ConflictError(
            f"release {custom.model} {custom.release_sequence}: signed is {custom.version}, "
            f"manifest {signed[1][:12]}…, uploaded is {found}",
            code="not-uploaded",
        )


def valid_signers(
    delegator: Metadata[Targets], role: str, metadata: Metadata[Targets]
) -> list[str]:
    """Ids of the keys whose signatures count."""
    result = delegator.signed.get_verification_result(
        role, metadata.signed_bytes, metadata.signatures
    )
    return sorted(result.signed)


def _record(
    connection: Connection,
    before: Contents | None,
    proposal: Proposal,
    changes: Changes,
    now_ms: int,
    actor: str,
) -> None:
    parts: Mapping[str, Metadata[Any]] = proposal.parts()
    data = {
        "versions": {role: part.signed.version for role, part in sorted(parts.items())},
        "signers": sorted({keyid for part in parts.values() for keyid in part.signatures}),
        "changes": describe(before, proposal),
    }
    action = "trust.root" if changes.root else "trust.targets"
    audit.record(connection, now_ms, actor, action, "repository", data)
