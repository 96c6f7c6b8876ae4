"""Staging an assigned release: target, manifest, then the files this device needs.

Director and offline signers must agree: the director assigns a release by its manifest's hash, and
the verified targets list that very hash under the release's path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from tuf.api.metadata import TargetFile

from agent.introspect import with_free_memory
from agent.memory import available_bytes, check_memory
from agent.updater.download import fetch_file
from agent.updater.metadata import MetadataClient
from agent.updater.session import Session, Transports
from agent.updater.wire import FetchRequest, Progress, Reached, Staged
from shoal.compatibility import Facts, Gap, choose_variant, explain_variants
from shoal.errors import ShoalError, UntrustedError
from shoal.protocol.desired import Assignment
from shoal.protocol.manifest import MAX_MANIFEST_BYTES, Manifest, Variant, decode_manifest
from shoal.protocol.targets import release_path
from shoal.tflite.reader import read_model
from shoal.tflite.requirements import file_gaps

Say = Callable[[Progress | Reached], None]


def stage(session: Session, request: FetchRequest, say: Say) -> Staged:
    """Bring everything of the release that this device needs onto the disk."""
    assignment = request.assignment
    folder = session.state_dir / "files"
    folder.mkdir(exist_ok=True)
    session.refresh(partial(_agree, assignment))
    manifest = _manifest(session, assignment, folder)
    say(Reached("verified"))
    facts = with_free_memory(request.facts)
    variant = _choose(manifest, facts)
    say(Reached("compatible"))
    _files(session, manifest, variant, folder, say)
    return Staged(variant.name, _check_model(manifest, variant, folder, facts))


def _agree(assignment: Assignment, client: MetadataClient, transports: Transports) -> None:
    """Raise unless the verified targets hold just what is assigned, and it is not too old."""
    name = f"{assignment.model} {assignment.version}"
    lowest = client.floors.releases.get(assignment.model, 0)
    if assignment.release_sequence < lowest:
        raise UntrustedError(
            f"{name}: release {assignment.release_sequence} is older than {lowest}, below which "
            "this device no longer goes",
            code="release-below-floor",
        )
    path = release_path(assignment.model, assignment.release_sequence)
    target = client.find(path)
    if target is None:
        raise UntrustedError(f"{name}: {path} is not released", code="unknown-target")
    if differences := find_differences(assignment, target):
        raise UntrustedError(
            f"{name}: the assignment is not what was released: {'; '.join(differences)}",
            code="assignment-mismatch",
        )


def find_differences(assignment: Assignment, target: TargetFile) -> list[str]:
    """Where an assignment and its target differ, as `field: assigned …, released …`. Pure."""
    custom = target.custom or {}
    pairs = (
        ("model", assignment.model, custom.get("model")),
        ("version", assignment.version, custom.get("version")),
        ("release_sequence", assignment.release_sequence, custom.get("release_sequence")),
        ("manifest_sha256", assignment.manifest_sha256, target.hashes.get("sha256")),
        ("manifest_length", assignment.manifest_length, target.length),
    )
    return [
        f"{field}: assigned {assigned}, released {released}"
        for field, assigned, released in pairs
        if assigned != released
    ]


def _manifest(session: Session, assignment: Assignment, folder: Path) -> Manifest:
    if assignment.manifest_length > MAX_MANIFEST_BYTES:
        raise UntrustedError(
            f"manifest: {assignment.manifest_length} bytes assigned", code="too-large"
        )
    path = fetch_file(
        session.transports,
        folder,
        assignment.manifest_sha256,
        assignment.manifest_length,
        session.limits,
    )
    manifest = decode_manifest(path.read_bytes())
    if (manifest.model, manifest.version, manifest.sequence) != (
        assignment.model,
        assignment.version,
        assignment.release_sequence,
    ):
        raise UntrustedError(
            f"assignment of {assignment.model} {assignment.version}: the manifest is of "
            f"{manifest.model} {manifest.version}",
            code="assignment-mismatch",
        )
    return manifest


def _files(session: Session, manifest: Manifest, variant: Variant, folder: Path, say: Say) -> None:
    names = {variant.file, manifest.baseline, manifest.golden and manifest.golden.file}
    entries = [manifest.file(name) for name in sorted(n for n in names if n)]
    total = sum(entry.length for entry in entries)
    done = 0
    for entry in entries:
        fetch_file(
            session.transports,
            folder,
            entry.sha256,
            entry.length,
            session.limits,
            lambda got, done=done: say(Progress(done + got, total)),  # type: ignore[misc]
        )
        done += entry.length


def _check_model(manifest: Manifest, variant: Variant, folder: Path, facts: Facts) -> int:
    """Believe the file, not the manifest, about what the file needs; bytes that loading takes."""
    if variant.runtime != "tflite":
        return 0
    path = folder / manifest.file(variant.file).sha256
    model = read_model(path.read_bytes(), f"{manifest.model} {manifest.version} {variant.file}")
    if gaps := file_gaps(model, facts):
        raise _incompatible(manifest, f"variant {variant.name} does not fit this device", gaps)
    name, need = f"{manifest.model} {manifest.version}", model.memory_bytes
    check_memory(name, need, available_bytes(), psutil.virtual_memory().total)
    return need


def _choose(manifest: Manifest, facts: Facts) -> Variant:
    variant, gaps = choose_variant(manifest, facts)
    if variant is None:
        for fit in explain_variants(manifest, facts):
            if _only_momentary(fit.gaps):
                gaps = fit.gaps
        raise _incompatible(manifest, "no variant fits this device", gaps)
    return variant


def _incompatible(manifest: Manifest, words: str, gaps: list[Gap]) -> ShoalError:
    sentence = f"{manifest.model} {manifest.version}: {words}; " + "; ".join(map(str, gaps))
    code = "memory-now" if _only_momentary(gaps) else "incompatible"
    return ShoalError(sentence, code=code)


def _only_momentary(gaps: list[Gap]) -> bool:
    """Whether all that lacks is memory that is taken at the moment, and may be free later."""
    return all(gap.field == "memory_free_mb" for gap in gaps)
