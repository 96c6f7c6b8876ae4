"""The folder of a release: written whole, and verified whole.

shoal-0.1.0-py3-none-any.whl, shoal-0.1.0.tar.gz
agent.lock, agent.cdx.json, …        what pip may install, and the list of parts, by extra
SHA256SUMS                           of all of these
provenance.dsse.json                 names all of these and SHA256SUMS, and is signed
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from release_lib.locks import INSTALLED, Pin, lock_path, read_lock
from release_lib.parts import listed_pins, write_parts
from release_lib.provenance import (
    Origin,
    Statement,
    builder_of,
    commit_of,
    inputs_of,
    open_statement,
    sign_statement,
)
from release_lib.source import build, export, find_source, version_of
from shoal.errors import InvalidInputError, UntrustedError
from shoal.signing import Signer, Verifier

SUMS = "SHA256SUMS"
PROVENANCE = "provenance.dsse.json"
MAX_FILE_BYTES = 256 * 1024 * 1024
BUILD_INPUTS = ("pyproject.toml", "locks/build.lock")


def make_release(repository: Path, out: Path, signer: Signer, builder: str) -> None:
    """Build HEAD of `repository` into the new folder `out`."""
    source = find_source(repository)
    try:
        out.mkdir(parents=True)
    except FileExistsError as error:
        raise InvalidInputError(f"{out}: expected a new folder, it exists already") from error
    with tempfile.TemporaryDirectory() as temporary:
        exported = Path(temporary)
        export(source, exported)
        build(source, exported, out)
        version = version_of(exported)
        built = datetime.fromtimestamp(source.epoch, UTC)
        for extra in INSTALLED:
            text = (exported / lock_path(extra)).read_text(encoding="utf-8")
            (out / f"{extra}.lock").write_text(text, encoding="utf-8")
            parts = write_parts(extra, version, source.commit, built, read_lock(text, extra))
            (out / f"{extra}.cdx.json").write_bytes(parts)
        paths = [*BUILD_INPUTS, *(lock_path(extra) for extra in INSTALLED)]
        inputs = {path: digest(exported / path) for path in paths}
    seal_folder(out, Origin(builder, version, source.commit, source.epoch, inputs), signer)


def seal_folder(folder: Path, origin: Origin, signer: Signer) -> None:
    """Write the digests of all that is in a folder, and sign them."""
    names = {path.name for path in folder.iterdir()} - {SUMS, PROVENANCE}
    digests = {name: digest(folder / name) for name in names}
    (folder / SUMS).write_text(_sums(digests), encoding="ascii")
    digests[SUMS] = digest(folder / SUMS)
    (folder / PROVENANCE).write_bytes(sign_statement(origin, digests, signer))


def verify_release(
    folder: Path, verifier: Verifier, *, commit: str | None = None, builder: str | None = None
) -> Statement:
    """Check everything in a folder, the signature first; nothing unsigned is believed."""
    present = _listing(folder)
    if PROVENANCE not in present:
        raise UntrustedError(f"{folder}: no {PROVENANCE}", code="missing-file")
    statement = open_statement((folder / PROVENANCE).read_bytes(), verifier)
    signed = {one.name: one.digest.get("sha256", "") for one in statement.subject}
    _same_names(folder, present - {PROVENANCE}, set(signed))
    for name, expected in sorted(signed.items()):
        _same(name, "sha256", expected, digest(folder / name), "changed-file")
    _same_sums(folder, signed)
    _same_parts(folder, statement, present)
    if commit is not None and not (len(commit) >= 7 and commit_of(statement).startswith(commit)):
        _same("provenance", "commit", commit, commit_of(statement), "wrong-commit")
    if builder is not None:
        _same("provenance", "builder", builder, builder_of(statement), "wrong-builder")
    return statement


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise UntrustedError(
            f"{path.name}: expected a file of at most {MAX_FILE_BYTES} bytes", code="not-a-file"
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listing(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError as error:
        raise InvalidInputError(f"{folder}: {error.strerror}") from error


def _sums(digests: Mapping[str, str]) -> str:
    return "".join(f"{one}  {name}\n" for name, one in sorted(digests.items()))


def _same_names(folder: Path, present: set[str], signed: set[str]) -> None:
    for name in sorted(signed - present):
        raise UntrustedError(f"{folder}: {name} is signed, but missing", code="missing-file")
    for name in sorted(present - signed):
        raise UntrustedError(f"{folder}: {name} is there, but not signed", code="extra-file")


def _same(name: str, what: str, expected: str, got: str, code: str) -> None:
    if expected != got:
        raise UntrustedError(f"{name}: expected {what} {expected}, got {got}", code=code)


def _same_sums(folder: Path, signed: Mapping[str, str]) -> None:
    """`sha256sum --check` must come to the same end as the provenance."""
    expected = _sums({name: one for name, one in signed.items() if name != SUMS})
    if SUMS not in signed or (folder / SUMS).read_text(encoding="ascii") != expected:
        raise UntrustedError(f"{SUMS}: differs from the signed digests", code="wrong-sums")


def _same_parts(folder: Path, statement: Statement, present: set[str]) -> None:
    """Every lock is the commit's, and its list of parts names exactly what it pins."""
    inputs = inputs_of(statement)
    for extra in sorted(name.removesuffix(".lock") for name in present if name.endswith(".lock")):
        lock, parts = folder / f"{extra}.lock", folder / f"{extra}.cdx.json"
        built_with = inputs.get(lock_path(extra), {}).get("sha256", "none")
        _same(lock.name, "the lock it was built with,", built_with, digest(lock), "wrong-lock")
        if parts.name not in present:
            raise UntrustedError(f"{lock.name}: no list of parts {parts.name}", code="missing-file")
        pinned = Counter(read_lock(lock.read_text(encoding="utf-8"), lock.name))
        listed = Counter(listed_pins(parts.name, parts.read_bytes()))
        for pin in (pinned - listed) or (listed - pinned):
            raise UntrustedError(_difference(parts.name, pin, pinned, listed), code="wrong-parts")


def _difference(name: str, pin: Pin, pinned: Counter[Pin], listed: Counter[Pin]) -> str:
    same = [one for one in (listed if pin in pinned else pinned) if one.purl == pin.purl]
    if same:
        return f"{name}: {pin.purl}: other hashes or markers than the lock pins"
    where = "pinned by the lock, but not listed" if pin in pinned else "listed, but not in the lock"
    return f"{name}: {pin.purl} is {where}"
