"""What python-tuf fetches metadata with: a transport under a deadline, or only the cache.

python-tuf's own fetcher has gap timeouts only. A document's bytes stay in memory, at most as many
as python-tuf allows it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadError as TufDownloadError
from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient import FetcherInterface

from agent.updater.pace import Limits, Pace
from agent.updater.transport import NotThereError, Transport
from shoal.errors import ShoalError

BASE = "metadata/"


class TransportFailedError(TufDownloadError):
    """Carries our own refusal through python-tuf."""

    def __init__(self, refusal: ShoalError) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


class MetadataFetcher(FetcherInterface):
    """Remembers what came last, so that a refusal can say which file is at fault."""

    def __init__(self) -> None:
        self.last: tuple[str, bytes] = ("", b"")

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The whole document, or an error that python-tuf knows."""
        name = url.removeprefix(BASE)
        data = bytearray()
        self.last = (name, b"")
        for chunk in self._open(name, max_length):
            data += chunk
            if len(data) > max_length:
                raise DownloadLengthMismatchError(f"{name}: more than {max_length} bytes")
        self.last = (name, bytes(data))
        return bytes(data)

    @abstractmethod
    def _open(self, name: str, max_length: int) -> Iterator[bytes]:
        """The document's bytes as they come."""

    def _fetch(self, url: str) -> Iterator[bytes]:  # python-tuf asks for it; it is not reached
        return self._open(url.removeprefix(BASE), 0)


class RemoteFetcher(MetadataFetcher):
    """Metadata over one transport."""

    def __init__(self, transport: Transport, limits: Limits) -> None:
        super().__init__()
        self._transport = transport
        self._limits = limits

    def _open(self, name: str, max_length: int) -> Iterator[bytes]:
        pace = Pace(f"{self._transport.name}/{BASE}{name}", max_length, self._limits)
        try:
            with self._transport.open(BASE + name, 0, pace) as stream:
                yield from stream.chunks
        except NotThereError as error:
            raise DownloadHTTPError(error.sentence, error.status) from error
        except ShoalError as error:
            raise TransportFailedError(error) from error


class CacheFetcher(MetadataFetcher):
    """Only what a refresh before has left in python-tuf's cache: nothing is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _open(self, name: str, max_length: int) -> Iterator[bytes]:
        version, _, role = name.rpartition(".json")[0].rpartition(".")
        if role == "root":
            raise DownloadHTTPError(f"{name}: not asked for", 404)
        try:
            with (self._folder / f"{role if version else name[:-5]}.json").open("rb") as file:
                yield file.read(max_length + 1)
        except OSError as error:
            refusal = ShoalError(f"metadata {name}: not here yet", code="metadata-missing")
            raise TransportFailedError(refusal) from error
