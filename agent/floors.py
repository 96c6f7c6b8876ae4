"""What this device has seen and never goes below: the memory that python-tuf's cache is not.

python-tuf forgets its protection against rollback when its cached timestamp and snapshot are both
lost. So two copies of one small record lie beside that cache, each with a checksum, each synced;
the newer of those that can be read counts. Where neither can, nothing is activated: a device that
does not know what it has seen cannot tell an old world from a new one.

>>> decode_floors(encode_floors(Floors(desired_sequence=7))).desired_sequence
7
>>> decode_floors(encode_floors(Floors())[:-2]) is None
True
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from agent.state_files import write_private

TRUST_FOLDER = "trust"
COPIES = ("floors.json", "floors-2.json")
_LOCK = "lock"
MAX_BYTES = 64 * 1024


class RoleFloor(Struct, frozen=True):
    """The highest version seen of a role, while these keys signed for it."""

    version: int
    keys: list[str]


class Floors(Struct, frozen=True):
    """One record; `generation` counts its writings."""

    generation: int = 0
    roles: dict[str, RoleFloor] = {}
    """By the name of the TUF role."""
    releases: dict[str, int] = {}
    """By model: older releases are never fetched again, whoever asks."""
    desired_sequence: int = 0
    desired_sha256: str = ""
    """Of the payload with that sequence: another one with the same sequence is an attack."""
    time_ms: int = 0
    """The latest time that was signed and verified."""
    boot_id: str = ""
    boot_ms: int = 0
    """The kernel's boot, and how long it had run, when that was."""


class _File(Struct):
    crc32: int
    floors: Raw


def encode_floors(floors: Floors) -> bytes:
    """The bytes of one copy."""
    body = msgspec.json.encode(floors)
    return msgspec.json.encode(_File(zlib.crc32(body), Raw(body)))


def decode_floors(data: bytes) -> Floors | None:
    """The record, or None where a single bit is wrong."""
    try:
        file = msgspec.json.decode(data, type=_File)
        if zlib.crc32(bytes(file.floors)) != file.crc32:
            return None
        return msgspec.json.decode(file.floors, type=Floors)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_floors(state_dir: Path) -> Floors | None:
    """The newer of the copies that can be read; None where neither can."""
    found = []
    for name in COPIES:
        with suppress(OSError), (state_dir / TRUST_FOLDER / name).open("rb") as file:
            if (floors := decode_floors(file.read(MAX_BYTES))) is not None:
                found.append(floors)
    return max(found, key=lambda floors: floors.generation, default=None)


def write_floors(state_dir: Path, floors: Floors) -> Floors:
    """Write both copies, one after the other, each durable before the next is touched."""
    after = msgspec.structs.replace(floors, generation=floors.generation + 1)
    for name in COPIES:
        write_private(state_dir / TRUST_FOLDER / name, encode_floors(after))
    return after


@contextmanager
def hold_trust(state_dir: Path) -> Iterator[None]:
    """Be the only process that reads and writes floors and cached metadata."""
    handle = os.open(state_dir / TRUST_FOLDER / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def raise_release(state_dir: Path, model: str, sequence: int) -> None:
    """From now on no release of `model` below `sequence` is fetched; never lowers a floor."""
    with hold_trust(state_dir):
        floors = read_floors(state_dir)
        if floors is None or floors.releases.get(model, 0) >= sequence:
            return
        releases = {**floors.releases, model: sequence}
        write_floors(state_dir, msgspec.structs.replace(floors, releases=releases))
