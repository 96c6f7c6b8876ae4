"""From what python-tuf raises to codes that an operator can tell attacks apart by.

| code | what it says |
|---|---|
| `metadata-rollback` | an older version than was seen before |
| `metadata-mismatch` | a file that is not the one its parent lists: mix-and-match |
| `metadata-expired` | nothing fresh: a freeze, or a controller that no longer signs |
| `clock-ahead` | nothing fresh, by a clock that is far beyond all signed times |
| `metadata-unsigned` | too few valid signatures |
| `metadata-too-large` | more bytes than allowed: endless data |
| `metadata-malformed` | not metadata |
| `download-slow`, `download-failed` | the transport |
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    UnsignedMetadataError,
)

from agent.updater.fetcher import TransportFailedError
from agent.updater.moment import CLOCK_AHEAD_MS, system_ms, to_ms, to_time
from agent.updater.transport import DownloadError
from shoal.errors import ShoalError, UntrustedError

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (UnsignedMetadataError, "metadata-unsigned"),
    (LengthOrHashMismatchError, "metadata-mismatch"),
    (DownloadLengthMismatchError, "metadata-too-large"),
)


def as_refusal(error: Exception, last: tuple[str, bytes], cache: Path) -> ShoalError:
    """Our error for python-tuf's; `last` is the file fetched last, by name."""
    name, data = last
    if isinstance(error, TransportFailedError):
        return error.refusal
    if isinstance(error, ExpiredMetadataError):
        return _expired_file(name, data)
    if isinstance(error, BadVersionNumberError):
        code = "metadata-rollback" if _is_older(name, data, cache) else "metadata-mismatch"
        return UntrustedError(f"metadata {name}: {error}", code=code)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return UntrustedError(f"metadata {name}: {error}", code=code)
    if "Download" in type(error).__name__:
        return DownloadError(f"metadata {name}: {error}")
    return UntrustedError(f"metadata {name}: {error}", code="metadata-malformed")


def expired(role: str, expires: datetime, now: datetime) -> UntrustedError:
    """A file that has expired; whether the file or the clock is to blame shows in the distance."""
    sentence = f"metadata {role}: expired {expires.isoformat()}, now {now.isoformat()}"
    by_clock = system_ms() - to_ms(expires) > CLOCK_AHEAD_MS
    if by_clock:
        sentence += "; is the clock of this device ahead?"
    return UntrustedError(sentence, code="clock-ahead" if by_clock else "metadata-expired")


def _expired_file(name: str, data: bytes) -> UntrustedError:
    """python-tuf tells neither which file nor when; the file fetched last mostly knows."""
    try:
        when = datetime.fromisoformat(_signed(data)["expires"])
    except (ValueError, KeyError, TypeError):
        return UntrustedError(f"metadata {name}: expired", code="metadata-expired")
    return expired(name, when, to_time(system_ms()))


def _is_older(name: str, data: bytes, cache: Path) -> bool:
    """Whether a version that python-tuf refused lies below what the cache holds.

    The timestamp is fetched by name alone, so it can only be old. The others are fetched by the
    version their parent lists; if that is the version they have, a listed version fell.
    """
    if name == "timestamp.json":
        return True
    try:
        return bool(name.split(".", 1)[0] == str(_signed(data)["version"]))
    except (ValueError, KeyError, TypeError):
        return False


def _signed(data: bytes) -> dict[str, Any]:
    signed: dict[str, Any] = json.loads(data)["signed"]
    return signed
