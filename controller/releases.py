"""Releases: verified packages, their files, and what devices fetch of them.

An uploaded package is *pending signature* until signed targets metadata list it
(`controller.repository.publish`); from then on it is *released*, and can be assigned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, desc, func, insert, select

from controller import audit
from controller.database import reading, writing
from controller.errors import ConflictError, NotFoundError
from controller.ingest.write import upsert
from controller.schema import aliases, device_models, files, published_releases, releases
from controller.services import Services
from shoal.errors import UntrustedError
from shoal.package import Package, read_package, verify_package
from shoal.protocol.envelope import encode_envelope

Document = dict[str, Any]

PENDING, RELEASED, WITHDRAWN = "pending-signature", "released", "withdrawn"
"""Its model files may be gone (`registry.retention`)."""


def publish(services: Services, path: Path, actor: str) -> Document:
    """Verify a package and take it in, or raise saying what does not hold.

    Uploading exactly the same package again changes nothing and is no error.
    """
    package = read_package(path)
    with reading(services.engine) as connection:
        verifier = services.release_verifier(connection)
        if not verifier.key_count:
            raise UntrustedError(
                "no release key is trusted yet: shoal-controller trust-release-key",
                code="no-release-key",
            )
        verify_package(package, verifier)
    for data in (package.manifest_bytes, *package.files.values()):
        services.artifacts.put(data)
    with writing(services.engine) as connection:
        if not _known(connection, package):
            _insert(connection, package, services.now_ms(), actor)
            for data in package.files.values():  # retention may have deleted one meanwhile
                services.artifacts.put(data)
        return get_release(connection, package.manifest.model, package.manifest.version)


def _known(connection: Connection, package: Package) -> bool:
    """Whether it is published already; raise if it clashes with what is."""
    manifest = package.manifest
    name = f"{manifest.model} {manifest.version}"
    query = select(releases.c.manifest_sha256).where(
        releases.c.model == manifest.model, releases.c.version == manifest.version
    )
    found = connection.scalar(query)
    if found == package.manifest_sha256:
        return True
    if found is not None:
        raise ConflictError(
            f"release {name}: is published with manifest {found[:12]}…, "
            f"this one is {package.manifest_sha256[:12]}…; give it another version",
            code="version-taken",
        )
    named = (aliases.c.model == manifest.model) & (aliases.c.alias == manifest.version)
    if connection.scalar(select(aliases.c.alias).where(named)) is not None:
        raise ConflictError(
            f"release {name}: {manifest.model}@{manifest.version} is an alias; give it another "
            "version",
            code="version-is-an-alias",
        )
    query = select(func.max(releases.c.sequence)).where(releases.c.model == manifest.model)
    highest = connection.scalar(query) or 0
    if manifest.sequence <= highest:
        raise ConflictError(
            f"release {name}: sequence {manifest.sequence}, expected more than {highest}",
            code="sequence-not-rising",
        )
    return False


def _insert(connection: Connection, package: Package, now_ms: int, actor: str) -> None:
    manifest = package.manifest
    keys = [signature.keyid for signature in package.envelope.signatures]
    connection.execute(
        insert(releases).values(
            model=manifest.model,
            sequence=manifest.sequence,
            version=manifest.version,
            manifest_sha256=package.manifest_sha256,
            manifest_length=len(package.manifest_bytes),
            manifest=msgspec.to_builtins(manifest),
            envelope=encode_envelope(package.envelope),
            signed_by=keys,
            published_ms=now_ms,
            published_by=actor,
        )
    )
    entries = {entry.sha256: entry.length for entry in manifest.files}
    entries[package.manifest_sha256] = len(package.manifest_bytes)
    for digest, length in entries.items():
        upsert(connection, files, {"sha256": digest}, {"length": length})
    subject = f"release {manifest.model} {manifest.version}"
    data = {"sequence": manifest.sequence, "manifest": package.manifest_sha256, "signed_by": keys}
    audit.record(connection, now_ms, actor, "release.upload", subject, data)


def list_models(connection: Connection) -> list[Document]:
    """Every model name with its releases, newest first, and how many devices run which."""
    found: dict[str, Document] = {}
    for row in connection.execute(_newest_first()).mappings():
        one = found.setdefault(row["model"], {"model": row["model"], "releases": []})
        one["releases"].append(_brief(row))
    running = select(
        device_models.c.model, device_models.c.active_version, func.count().label("devices")
    ).group_by(device_models.c.model, device_models.c.active_version)
    counts = {(row.model, row.active_version): row.devices for row in connection.execute(running)}
    for one in found.values():
        for release in one["releases"]:
            release["devices"] = counts.get((one["model"], release["version"]), 0)
    return list(found.values())


def get_model(connection: Connection, model: str) -> Document:
    """One model and its releases."""
    for one in list_models(connection):
        if one["model"] == model:
            return one
    raise NotFoundError(f"model {model[:80]!r}: no release is published")


def get_release(connection: Connection, model: str, version: str) -> Document:
    """One release with its manifest."""
    row = _row(connection, model, releases.c.version == version, version)
    return _brief(row) | {"manifest": row["manifest"]}


def check_released(connection: Connection, model: str, version: str) -> None:
    """Raise unless a release is in signed targets metadata: devices would refuse it."""
    release = get_release(connection, model, version)
    if release["state"] != RELEASED:
        raise ConflictError(
            f"release {model} {version}: is {release['state'].replace('-', ' ')}, expected "
            "released; sign it with shoal release push --targets-key, or shoal release export",
            code="not-released",
        )


def pending(connection: Connection) -> list[Document]:
    """Releases that wait for the signers of targets."""
    found = [release for model in list_models(connection) for release in model["releases"]]
    return [one for one in found if one["state"] == PENDING]


def release_by_sequence(connection: Connection, model: str, sequence: int) -> RowMapping:
    """The row of a release."""
    return _row(connection, model, releases.c.sequence == sequence, str(sequence))


def _row(connection: Connection, model: str, here: Any, what: str) -> RowMapping:
    row = (
        connection.execute(_with_state().where(releases.c.model == model, here)).mappings().first()
    )
    if row is None:
        raise NotFoundError(f"release {model[:80]} {what[:40]}: not published")
    return row


def _newest_first() -> Any:
    return _with_state().order_by(releases.c.model, desc(releases.c.sequence))


def _with_state() -> Any:
    p = published_releases.c
    same = (p.model == releases.c.model) & (p.sequence == releases.c.sequence)
    signed = [p.signers, p.published_ms.label("released_ms"), p.published_by.label("released_by")]
    return select(releases, *signed, p.withdrawn_ms).outerjoin(published_releases, same)


def _brief(row: RowMapping) -> Document:
    names = (
        "model", "version", "sequence", "manifest_sha256", "manifest_length", "signed_by",
        "published_ms", "published_by", "released_ms", "released_by",
    )  # fmt: skip
    manifest = row["manifest"]
    size = sum(entry["length"] for entry in manifest["files"])
    card = manifest.get("card") or {}
    return {name: row[name] for name in names} | {
        "state": _state(row),
        "signers": row["signers"] or [],
        "bytes": size,
        "summary": card.get("summary", ""),
        "metrics": card.get("metrics", {}),
        "variants": [one["name"] for one in manifest["variants"]],
    }


def _state(row: RowMapping) -> str:
    if row["withdrawn_ms"] is not None:
        return WITHDRAWN
    return PENDING if row["released_ms"] is None else RELEASED
