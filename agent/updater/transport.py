"""Where bytes come from: HTTP, or the broker. Nothing is believed for where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from agent.updater.pace import Pace
from shoal.errors import ShoalError


class DownloadError(ShoalError):
    """The transport failed; the part stays and is resumed."""

    code = "download-failed"


class NotThereError(DownloadError):
    """The other side answered that it has no such thing, or will not give it; HTTP's status."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes of a document from `start` on, which may be before what was asked for."""

    start: int
    chunks: Iterator[bytes]


class Transport(Protocol):
    """Opens documents by their path: `metadata/timestamp.json`, `files/<sha256>`.

    It raises `DownloadError`, or `SlowTransferError` when the pace's deadline has passed; both
    while opening and while chunks are taken.
    """

    @property
    def name(self) -> str: ...
    def open(self, path: str, start: int, pace: Pace) -> AbstractContextManager[Stream]: ...
