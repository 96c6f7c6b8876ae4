"""Fetching one content-addressed file: resumable, bounded, verified before it has its name.

Bytes go to `<sha256>.part`; a later run goes on where it ends (HTTP Range). Length and hash are
checked, then the file is synced and renamed to `<sha256>`, read-only. Nothing depends on what the
server says but the bytes themselves.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from agent.state_files import fsync_folder
from shoal.errors import ShoalError, UntrustedError

CHUNK_BYTES = 64 * 1024
GAP_TIMEOUT_SECONDS = 20.0
MIN_BYTES_PER_SECOND = 4096
"""Slower than this over a whole file is given up and resumed later."""
GRACE_SECONDS = 30.0
SPARE_BYTES = 4 * 1024 * 1024


class DownloadError(ShoalError):
    """The transport failed; the part stays and is resumed."""

    code = "download-failed"


def fetch_file(
    url: str,
    folder: Path,
    sha256: str,
    length: int,
    on_bytes: Callable[[int], None] = lambda done: None,
) -> Path:
    """Return the path of the verified file, downloading what is missing of it."""
    target = folder / sha256
    if target.exists() and target.stat().st_size == length and digest_of(target) == sha256:
        return target
    part = folder / f"{sha256}.part"
    _check_space(folder, length, part)
    with part.open("ab") as file:
        if file.tell() > length:
            _begin_again(file)
        if file.tell() < length:
            _receive(url, file, length, on_bytes)
        file.flush()
        os.fsync(file.fileno())
    got = digest_of(part)
    if got != sha256:
        part.unlink()
        raise UntrustedError(
            f"{url}: expected sha256 {sha256[:12]}…, got {got[:12]}…", code="digest-mismatch"
        )
    part.replace(target)
    target.chmod(0o400)  # not before: a part left read-only could not be resumed
    fsync_folder(folder)
    return target


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_small(url: str, most: int) -> bytes:
    """GET a small document of at most `most` bytes."""
    with _open(url, 0) as response:
        try:
            data: bytes = response.read(most + 1)
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{url}: broke off") from error
        left = response.length
    if len(data) > most:
        raise UntrustedError(f"{url}: more than {most} bytes", code="too-large")
    if left:
        raise DownloadError(f"{url}: broke off {left} bytes before its end")
    return data


def _begin_again(file: BinaryIO) -> None:
    """Empty the part; `truncate(0)` alone would leave the position where it was."""
    file.seek(0)
    file.truncate()


def _receive(url: str, file: BinaryIO, length: int, on_bytes: Callable[[int], None]) -> None:
    start = file.tell()
    deadline = time.monotonic() + (length - start) / MIN_BYTES_PER_SECOND + GRACE_SECONDS
    with _open(url, start) as response:
        if start and response.status != http.HTTPStatus.PARTIAL_CONTENT:
            _begin_again(file)  # the server ignored the range and sends all of it
        while True:
            try:
                chunk = response.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise DownloadError(f"{url}: broke off after {file.tell()} bytes") from error
            if not chunk:
                break
            if file.tell() + len(chunk) > length:
                _begin_again(file)
                raise UntrustedError(f"{url}: more than {length} bytes", code="too-large")
            file.write(chunk)
            on_bytes(file.tell())
            if time.monotonic() > deadline:
                raise DownloadError(
                    f"{url}: slower than {MIN_BYTES_PER_SECOND} B/s", code="download-slow"
                )
    if file.tell() < length:
        raise DownloadError(f"{url}: expected {length} bytes, got {file.tell()}")


def _open(url: str, start: int) -> http.client.HTTPResponse:
    if not url.startswith(("http://", "https://")):
        raise UntrustedError(f"{url}: expected http:// or https://", code="bad-url")
    headers = {"accept-encoding": "identity"}
    if start:
        headers["range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
            request, timeout=GAP_TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url}: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{url}: {error}") from error
    return response


def _check_space(folder: Path, length: int, part: Path) -> None:
    have = shutil.disk_usage(folder).free + (part.stat().st_size if part.exists() else 0)
    if have < length + SPARE_BYTES:
        raise ShoalError(
            f"disk: {length + SPARE_BYTES} bytes needed, {have} free", code="disk-full"
        )
