"""Where a release comes from: an in-toto Statement v1 with a SLSA Provenance v1 predicate.

It lies in a DSSE envelope that the release key signs.

It names every other file of the folder by its digest, so that one signature covers all of them.
Sources: https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.1/provenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from shoal.errors import UntrustedError
from shoal.protocol.envelope import decode_envelope, encode_envelope
from shoal.signing import Signer, Verifier, seal

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:shoal:build:release:v1"
COMMAND = "scripts/release build"


@dataclass(frozen=True, slots=True)
class Origin:
    """What was built, by whom, from what."""

    builder: str
    version: str
    commit: str
    epoch: int
    """SOURCE_DATE_EPOCH: when the commit was made."""
    inputs: Mapping[str, str]
    """SHA-256 of the files that say what is installed, by their paths in the repository."""


class Subject(Struct):
    """One file by its digest."""

    name: str
    digest: dict[str, str]


class Statement(Struct):
    """An in-toto Statement v1."""

    kind: str = field(name="_type")
    subject: list[Subject]
    predicate_type: str = field(name="predicateType")
    predicate: dict[str, Any]


def sign_statement(origin: Origin, digests: Mapping[str, str], signer: Signer) -> bytes:
    """The envelope that says that these files come from `origin`."""
    statement = Statement(
        kind=STATEMENT_TYPE,
        subject=[Subject(name, {"sha256": one}) for name, one in sorted(digests.items())],
        predicate_type=PREDICATE_TYPE,
        predicate=_predicate(origin),
    )
    return encode_envelope(seal(msgspec.json.encode(statement), PAYLOAD_TYPE, signer)) + b"\n"


def open_statement(data: bytes, verifier: Verifier) -> Statement:
    """The statement, once the signature holds."""
    payload = verifier.open(decode_envelope(data), PAYLOAD_TYPE)
    try:
        found = msgspec.json.decode(payload, type=Statement)
    except msgspec.DecodeError as error:
        raise UntrustedError(f"provenance: {error}", code="bad-provenance") from error
    for what, expected, got in (
        ("statement", STATEMENT_TYPE, found.kind),
        ("predicate", PREDICATE_TYPE, found.predicate_type),
        ("build type", BUILD_TYPE, _part(found, "buildDefinition", "buildType")),
    ):
        if got != expected:
            raise UntrustedError(
                f"provenance: {what}: expected {expected}, got {got!r}", code="bad-provenance"
            )
    return found


def builder_of(statement: Statement) -> str:
    """Who says to have built it."""
    return str(_part(statement, "runDetails", "builder", "id"))


def inputs_of(statement: Statement) -> dict[str, dict[str, str]]:
    """Digests of what went in: `source` is the commit, other names are paths."""
    found = _part(statement, "buildDefinition", "resolvedDependencies")
    items = found if isinstance(found, list) else []
    return {str(one.get("name")): dict(one.get("digest", {})) for one in items}


def commit_of(statement: Statement) -> str:
    """The commit it was built from."""
    return inputs_of(statement).get("source", {}).get("gitCommit", "")


def _part(statement: Statement, *path: str) -> Any:
    found: Any = statement.predicate
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _predicate(origin: Origin) -> dict[str, Any]:
    source = {"name": "source", "digest": {"gitCommit": origin.commit}}
    inputs = [
        {"name": name, "digest": {"sha256": one}} for name, one in sorted(origin.inputs.items())
    ]
    built = datetime.fromtimestamp(origin.epoch, UTC).isoformat()
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"command": COMMAND, "version": origin.version},
            "internalParameters": {"SOURCE_DATE_EPOCH": origin.epoch, "dirty": False},
            "resolvedDependencies": [source, *inputs],
        },
        "runDetails": {
            "builder": {"id": origin.builder},
            "metadata": {
                "invocationId": f"{origin.commit}/{origin.version}",
                "startedOn": built,
            },
        },
    }
