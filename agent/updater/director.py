"""Whom to obey: the director's keys come from a verified target, and from nowhere else.

`trust/director.json` is signed offline like a release. A rotated key is found by asking for newer
metadata when an envelope is signed by a key that is not known.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec

from agent.floors import TRUST_FOLDER
from agent.updater.download import fetch_file
from agent.updater.metadata import MetadataClient
from agent.updater.moment import effective_now, raise_time, read_uptime
from agent.updater.session import Session, Transports
from shoal.errors import ShoalError, UntrustedError
from shoal.protocol.commands import Command, check_command, decode_command
from shoal.protocol.desired import DesiredState, check_desired, decode_desired
from shoal.protocol.envelope import COMMAND_TYPE, DESIRED_TYPE, decode_envelope
from shoal.protocol.targets import (
    DIRECTOR_PATH,
    MAX_DIRECTOR_BYTES,
    DirectorKeys,
    decode_director,
)
from shoal.signing import KeyVerifier

TARGETS_FOLDER = "targets"


@dataclass(frozen=True, slots=True)
class Director:
    """The file, and until when what the offline keys signed holds."""

    file: DirectorKeys
    latest: datetime

    def open(self, envelope: bytes, payload_type: str) -> bytes:
        """The payload that the director has signed."""
        verifier = KeyVerifier(self.file.keys, self.file.threshold)
        return verifier.open(decode_envelope(envelope), payload_type)


def verify_desired(
    session: Session, envelope: bytes, *, device: str, floor: int, may_refresh: bool
) -> bytes:
    """The payload of a desired state that this device may obey; remembered before it is obeyed."""
    director, payload = open_sealed(session, envelope, DESIRED_TYPE, may_refresh)
    desired = decode_desired(payload)
    digest = hashlib.sha256(payload).hexdigest()
    with session.floors() as floors:
        lowest = max(floor, floors.desired_sequence, director.file.min_sequence)
        now = effective_now(floors)
        check_desired(desired, device=device, floor=lowest, now=now)
        _check_validity("desired state", desired, director)
        if desired.sequence == floors.desired_sequence and digest != floors.desired_sha256:
            raise UntrustedError(
                f"desired state: sequence {desired.sequence} came twice with different content",
                code="desired-conflict",
            )
        after = msgspec.structs.replace(
            floors, desired_sequence=desired.sequence, desired_sha256=digest
        )
        after = raise_time(after, desired.issued, director.latest, read_uptime())
        session.store(floors, after)
    return payload


def verify_command(session: Session, envelope: bytes, *, device: str, may_refresh: bool) -> bytes:
    """The payload of a command that this device may answer."""
    director, payload = open_sealed(session, envelope, COMMAND_TYPE, may_refresh)
    command = decode_command(payload)
    with session.floors() as floors:
        check_command(command, device=device, now=effective_now(floors))
    _check_validity(f"command {command.command}", command, director)
    return payload


def open_sealed(
    session: Session, envelope: bytes, payload_type: str, may_refresh: bool
) -> tuple[Director, bytes]:
    """Verify with the keys known here; ask for newer ones where those do not do."""
    try:
        director = session.recall(partial(_read_director, session))
        return director, director.open(envelope, payload_type)
    except ShoalError as error:
        about_keys = error.code == "unknown-key" or not error.code.startswith(
            ("envelope-", "wrong-payload", "bad-signature", "floors-", "no-root", "bad-key")
        )
        if not may_refresh or not about_keys:
            raise
    director = session.refresh(partial(_read_director, session))
    return director, director.open(envelope, payload_type)


def _read_director(session: Session, client: MetadataClient, transports: Transports) -> Director:
    """The verified target, from here or from where the metadata came."""
    target = client.find(DIRECTOR_PATH)
    if target is None or client.latest is None:
        raise UntrustedError(f"{DIRECTOR_PATH}: not among the verified targets", code="no-director")
    if target.length > MAX_DIRECTOR_BYTES:
        raise UntrustedError(f"{DIRECTOR_PATH}: {target.length} bytes", code="too-large")
    folder = session.state_dir / TRUST_FOLDER / TARGETS_FOLDER
    folder.mkdir(exist_ok=True)
    path = fetch_file(transports, folder, target.hashes["sha256"], target.length, session.limits)
    _drop_others(folder, path)
    file = decode_director(path.read_bytes())
    return Director(file, client.latest)


def _drop_others(folder: Path, kept: Path) -> None:
    for path in folder.iterdir():
        if path != kept:
            path.unlink(missing_ok=True)


def _check_validity(what: str, message: DesiredState | Command, director: Director) -> None:
    most = timedelta(seconds=director.file.max_validity_seconds)
    if message.expires - message.issued > most:
        raise UntrustedError(
            f"{what}: valid for {message.expires - message.issued}, at most {most} allowed",
            code="valid-too-long",
        )
