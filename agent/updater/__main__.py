"""`python -m agent.updater`: answer one request and end."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import psutil

from agent.introspect import with_free_memory
from agent.memory import available_bytes, check_memory
from agent.trust import Trust, load_trust
from agent.updater.download import fetch_file, fetch_small
from agent.updater.wire import (
    FetchRequest,
    Progress,
    Reached,
    Refused,
    Reply,
    Request,
    Staged,
    Verified,
    VerifyCommandRequest,
    VerifyRequest,
    decode_request,
)
from shoal.compatibility import Facts, Gap, choose_variant
from shoal.errors import ShoalError, UntrustedError
from shoal.package import check_statement
from shoal.protocol.commands import check_command, decode_command
from shoal.protocol.desired import Assignment, check_desired, decode_desired
from shoal.protocol.envelope import (
    COMMAND_TYPE,
    DESIRED_TYPE,
    MAX_ENVELOPE_BYTES,
    RELEASE_TYPE,
    decode_envelope,
)
from shoal.protocol.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    Variant,
    decode_manifest,
)
from shoal.signing import KeyVerifier
from shoal.tflite.reader import read_model
from shoal.tflite.requirements import file_gaps

RETRYABLE = {"download-failed", "download-slow", "disk-full", "memory-now"}


def main() -> None:
    """Read a request from standard input and write the result to standard output."""
    request = decode_request(sys.stdin.buffer.read())
    try:
        reply = answer(request)
    except ShoalError as error:
        reply = Refused(error.code, error.sentence, error.code in RETRYABLE)
    except OSError as error:
        reply = Refused("disk-error", f"updater: {error}", retryable=True)
    _say(reply)


def answer(request: Request) -> Reply:
    """Do what is asked."""
    if isinstance(request, VerifyRequest):
        return verify(request)
    if isinstance(request, VerifyCommandRequest):
        return verify_command(request)
    return fetch(request)


def verify(request: VerifyRequest) -> Reply:
    """Check a desired state: signature, device, sequence, expiry."""
    trust = load_trust(Path(request.state_dir))
    envelope = decode_envelope(request.envelope)
    payload = KeyVerifier(trust.director_keys).open(envelope, DESIRED_TYPE)
    desired = decode_desired(payload)
    check_desired(desired, device=request.device, floor=request.floor, now=_now(request.now_ms))
    return Verified(payload)


def verify_command(request: VerifyCommandRequest) -> Reply:
    """Check a command: signature, device, expiry."""
    trust = load_trust(Path(request.state_dir))
    envelope = decode_envelope(request.envelope)
    payload = KeyVerifier(trust.director_keys).open(envelope, COMMAND_TYPE)
    check_command(decode_command(payload), device=request.device, now=_now(request.now_ms))
    return Verified(payload)


def _now(agent_ms: int) -> datetime:
    """The later of the system's and the agent's time."""
    return max(datetime.now(UTC), datetime.fromtimestamp(agent_ms / 1000, UTC))


def fetch(request: FetchRequest) -> Reply:
    """Stage an assigned release: statement, manifest, then the files this device needs."""
    state_dir, assignment = Path(request.state_dir), request.assignment
    trust = load_trust(state_dir)
    folder = state_dir / "files"
    folder.mkdir(exist_ok=True)
    manifest = _manifest(trust, assignment, folder)
    _say(Reached("verified"))
    facts = with_free_memory(request.facts)
    variant, gaps = choose_variant(manifest, facts)
    if variant is None:
        raise _incompatible(manifest, "no variant fits this device", gaps)
    _say(Reached("compatible"))
    _files(trust, manifest, variant, folder)
    return Staged(variant.name, _check_model(manifest, variant, folder, facts))


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


def _incompatible(manifest: Manifest, words: str, gaps: list[Gap]) -> ShoalError:
    sentence = f"{manifest.model} {manifest.version}: {words}; " + "; ".join(map(str, gaps))
    return ShoalError(sentence, code="incompatible")


def _manifest(trust: Trust, assignment: Assignment, folder: Path) -> Manifest:
    """The manifest that the director assigned and release keys signed; both must agree."""
    base = trust.repository_url.rstrip("/")
    url = f"{base}/releases/{assignment.model}/{assignment.release_sequence}"
    envelope = decode_envelope(fetch_small(url, MAX_ENVELOPE_BYTES))
    verifier = KeyVerifier(trust.release_keys, trust.release_threshold)
    payload = verifier.open(envelope, RELEASE_TYPE)
    if assignment.manifest_length > MAX_MANIFEST_BYTES:
        raise UntrustedError(
            f"manifest: {assignment.manifest_length} bytes assigned", code="too-large"
        )
    path = fetch_file(
        f"{base}/files/{assignment.manifest_sha256}",
        folder,
        assignment.manifest_sha256,
        assignment.manifest_length,
    )
    data = path.read_bytes()
    manifest = decode_manifest(data)
    statement = check_statement(payload, manifest, data)
    if (statement.model, statement.version, statement.sequence) != (
        assignment.model,
        assignment.version,
        assignment.release_sequence,
    ):
        raise UntrustedError(
            f"assignment of {assignment.model} {assignment.version}: the release signed is "
            f"{statement.model} {statement.version}",
            code="assignment-mismatch",
        )
    return manifest


def _files(trust: Trust, manifest: Manifest, variant: Variant, folder: Path) -> None:
    names = {variant.file, manifest.baseline, manifest.golden and manifest.golden.file}
    entries = [manifest.file(name) for name in sorted(n for n in names if n)]
    total = sum(entry.length for entry in entries)
    done = 0
    for entry in entries:
        url = f"{trust.repository_url.rstrip('/')}/files/{entry.sha256}"
        fetch_file(url, folder, entry.sha256, entry.length, partial(_progress, done, total))
        done += entry.length


def _progress(before: int, total: int, got: int) -> None:
    _say(Progress(before + got, total))


def _say(reply: Reply) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
