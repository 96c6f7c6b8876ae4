"""Packages: a release as one deterministic file, `*.shoal`.

A package is a stored (never compressed) zip with a fixed layout: `manifest.json`,
`release.dsse.json` (the signed `Release` statement), and `files/<name>` for each file of the
manifest, in that order, without times or attributes. Same content, same bytes. It lives between
author and controller only; devices fetch single files by hash.

Reading trusts nothing: names, sizes and hashes are checked against the manifest before a byte is
used, and everything else in the archive is refused.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shoal.errors import InvalidInputError
from shoal.protocol.envelope import (
    MAX_ENVELOPE_BYTES,
    RELEASE_TYPE,
    Envelope,
    decode_envelope,
    encode_envelope,
)
from shoal.protocol.manifest import (
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    Release,
    decode_manifest,
    encode_manifest,
)
from shoal.signing import Signer, Verifier, seal

MAX_PACKAGE_BYTES = 512 * 1024 * 1024
MANIFEST_NAME = "manifest.json"
STATEMENT_NAME = "release.dsse.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
# All that `zipfile` raises on damaged archives: a bad name is a ValueError, as is a wild offset.
_NOT_A_ZIP = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error)


@dataclass(frozen=True, slots=True)
class Package:
    """A read package. `manifest_bytes` are the exact bytes that were hashed and signed."""

    manifest: Manifest
    manifest_bytes: bytes
    envelope: Envelope
    files: dict[str, bytes]

    @property
    def manifest_sha256(self) -> str:
        """Hash that names this release everywhere."""
        return sha256(self.manifest_bytes)


def sha256(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_entries(files: dict[str, bytes]) -> list[FileEntry]:
    """The manifest's list of `files`, sorted by name."""
    return [
        FileEntry(name=name, sha256=sha256(data), length=len(data))
        for name, data in sorted(files.items())
    ]


def make_package(manifest: Manifest, files: dict[str, bytes], *signers: Signer) -> Package:
    """Sign `manifest`, whose `files` must describe exactly `files`."""
    if list(manifest.files) != file_entries(files):
        raise InvalidInputError("package: the manifest does not describe the files given")
    data = encode_manifest(manifest)
    decode_manifest(data)
    statement = Release(
        model=manifest.model,
        version=manifest.version,
        sequence=manifest.sequence,
        manifest_sha256=sha256(data),
        manifest_length=len(data),
    )
    payload = msgspec.json.encode(statement, order="deterministic")
    return Package(manifest, data, seal(payload, RELEASE_TYPE, *signers), files)


def write_package(package: Package, path: Path) -> None:
    """Write atomically: temporary file beside it, fsync, rename."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, data in _members(package):
                    info = zipfile.ZipInfo(name, _EPOCH)
                    info.create_system = 3
                    info.external_attr = 0o644 << 16
                    archive.writestr(info, data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _members(package: Package) -> list[tuple[str, bytes]]:
    named = [(f"files/{name}", data) for name, data in sorted(package.files.items())]
    return [
        (MANIFEST_NAME, package.manifest_bytes),
        (STATEMENT_NAME, encode_envelope(package.envelope)),
        *named,
    ]


def read_package(path: Path) -> Package:
    """Read and check everything but the signature (`verify_package`); `InvalidInputError`."""
    try:
        size = path.stat().st_size
        if size > MAX_PACKAGE_BYTES:
            raise _invalid(path, f"{size} bytes, at most {MAX_PACKAGE_BYTES} read", "too-large")
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except _NOT_A_ZIP as error:
        raise _invalid(path, f"not a package: {error}", "not-a-package") from error
    except OSError as error:
        raise _invalid(path, str(error), "unreadable") from error


def _read(path: Path, archive: zipfile.ZipFile) -> Package:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise _invalid(path, "a name stands twice", "duplicate-name")
    manifest_bytes = _member(path, archive, members, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    statement = _member(path, archive, members, STATEMENT_NAME, MAX_ENVELOPE_BYTES)
    manifest = decode_manifest(manifest_bytes)
    files = {}
    for entry in manifest.files:
        data = _member(path, archive, members, f"files/{entry.name}", entry.length)
        if len(data) != entry.length or sha256(data) != entry.sha256:
            raise _invalid(
                path,
                f"file {entry.name}: expected {entry.length} bytes, sha256 {entry.sha256[:12]}…, "
                f"got {len(data)} bytes, {sha256(data)[:12]}…",
                "digest-mismatch",
            )
        files[entry.name] = data
    if members:
        raise _invalid(path, f"not in the manifest: {sorted(members)[:5]}", "undeclared-file")
    return Package(manifest, manifest_bytes, decode_envelope(statement), files)


def _member(
    path: Path,
    archive: zipfile.ZipFile,
    members: dict[str, zipfile.ZipInfo],
    name: str,
    most: int,
) -> bytes:
    info = members.pop(name, None)
    if info is None:
        raise _invalid(path, f"{name} is missing", "missing-file")
    if info.compress_type != zipfile.ZIP_STORED:
        raise _invalid(path, f"{name} is compressed; packages are stored", "compressed")
    if info.file_size > most:
        raise _invalid(path, f"{name}: {info.file_size} bytes, expected {most}", "too-large")
    return archive.read(info)


def verify_package(package: Package, verifier: Verifier) -> Release:
    """Return the statement that trusted release keys signed of exactly this manifest."""
    payload = verifier.open(package.envelope, RELEASE_TYPE)
    return check_statement(payload, package.manifest, package.manifest_bytes)


def check_statement(payload: bytes, manifest: Manifest, manifest_bytes: bytes) -> Release:
    """Compare a verified statement with a manifest; `InvalidInputError` names the difference."""
    try:
        statement = msgspec.json.decode(payload, type=Release)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"release statement: {error}", code="bad-statement") from error
    pairs = {
        "model": (statement.model, manifest.model),
        "version": (statement.version, manifest.version),
        "sequence": (statement.sequence, manifest.sequence),
        "manifest_sha256": (statement.manifest_sha256, sha256(manifest_bytes)),
        "manifest_length": (statement.manifest_length, len(manifest_bytes)),
    }
    for key, (signed, found) in pairs.items():
        if signed != found:
            raise InvalidInputError(
                f"release statement: {key} signed as {signed}, the manifest has {found}",
                code="statement-mismatch",
            )
    return statement


def _invalid(path: Path, sentence: str, code: str) -> InvalidInputError:
    return InvalidInputError(f"package {path.name}: {sentence}", code=code)
