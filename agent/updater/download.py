"""Fetching one content-addressed file: resumable, bounded, verified before it has its name.

Bytes go to `<sha256>.part`; a later run goes on where it ends, from whichever transport answers.
Length and hash are checked, then the file is synced and renamed to `<sha256>`, read-only. Nothing
depends on what a transport says but the bytes themselves, so a cache nearby may serve them, or lie.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from agent.state_files import fsync_folder
from agent.updater.pace import Limits, Pace
from agent.updater.transport import DownloadError, Transport
from shoal.errors import ShoalError, UntrustedError

SPARE_BYTES = 4 * 1024 * 1024


def fetch_file(
    transports: Sequence[Transport],
    folder: Path,
    sha256: str,
    length: int,
    limits: Limits,
    on_bytes: Callable[[int], None] = lambda done: None,
) -> Path:
    """Return the path of the verified file, downloading what is missing of it."""
    target, part = folder / sha256, folder / f"{sha256}.part"
    if _is_whole(target, sha256, length):
        return target
    _check_space(folder, length, part)
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another model's updater may want the same file
        if _is_whole(target, sha256, length):
            return target
        _complete(file, transports, sha256, length, limits, on_bytes)
        part.replace(target)
        target.chmod(0o400)  # not before: a part left read-only could not be resumed
    fsync_folder(folder)
    return target


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(path: Path, sha256: str, length: int) -> bool:
    return path.exists() and path.stat().st_size == length and digest_of(path) == sha256


def _complete(
    file: BinaryIO,
    transports: Sequence[Transport],
    sha256: str,
    length: int,
    limits: Limits,
    on_bytes: Callable[[int], None],
) -> None:
    """Bring the part to its full length and the right hash, or raise the last refusal."""
    refused: ShoalError = DownloadError(f"file {sha256[:12]}…: no transport to fetch it by")
    if file.tell() >= length and _check(file, "the part", sha256, length) is None:
        return
    for transport in transports:
        for attempt in range(2):  # what was there before may have been bad: then from the beginning
            resumed = file.tell() > 0
            try:
                _receive(transport, file, sha256, length, limits, on_bytes)
            except ShoalError as error:
                refused = error
                break
            wrong = _check(file, transport.name, sha256, length)
            if wrong is None:
                return
            refused = wrong
            if not resumed or attempt:
                break
    raise refused


def _check(file: BinaryIO, where: str, sha256: str, length: int) -> UntrustedError | None:
    """Sync a complete part and compare its hash; a wrong one is emptied."""
    file.flush()
    os.fsync(file.fileno())
    got, size = digest_of(Path(file.name)), file.tell()
    if got == sha256 and size == length:
        return None
    _begin_again(file)
    return UntrustedError(
        f"{where}: file of {size} bytes: expected sha256 {sha256[:12]}…, got {got[:12]}…",
        code="digest-mismatch",
    )


def _begin_again(file: BinaryIO) -> None:
    """Empty the part; `truncate(0)` alone would leave the position where it was."""
    file.seek(0)
    file.truncate()


def _receive(
    transport: Transport,
    file: BinaryIO,
    sha256: str,
    length: int,
    limits: Limits,
    on_bytes: Callable[[int], None],
) -> None:
    """Append what is missing."""
    if file.tell() >= length:
        return
    path = f"files/{sha256}"
    where = f"{transport.name}/{path}"
    pace = Pace(where, length - file.tell(), limits)
    with transport.open(path, file.tell(), pace) as stream:
        if stream.start != file.tell():
            _begin_again(file)  # the range was ignored and all of it comes
        for chunk in stream.chunks:
            if file.tell() + len(chunk) > length:
                _begin_again(file)
                raise UntrustedError(f"{where}: more than {length} bytes", code="too-large")
            file.write(chunk)
            on_bytes(file.tell())
    if file.tell() < length:
        raise DownloadError(f"{where}: expected {length} bytes, got {file.tell()}")


def _check_space(folder: Path, length: int, part: Path) -> None:
    have = shutil.disk_usage(folder).free + (part.stat().st_size if part.exists() else 0)
    if have < length + SPARE_BYTES:
        raise ShoalError(
            f"disk: {length + SPARE_BYTES} bytes needed, {have} free", code="disk-full"
        )
