"""One updater's work with the repository: floors, pinned root, transports, fresh metadata.

    session = Session(state_dir, limits, transports)
    target = session.refresh(lambda client, transports: client.find("releases/weather/7.json"))

The trust folder's lock is held only while metadata are worked with, never during a download of a
release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from agent.floors import TRUST_FOLDER, Floors, hold_trust, read_floors, write_floors
from agent.trust import load_root
from agent.updater.fetcher import CacheFetcher, MetadataFetcher, RemoteFetcher
from agent.updater.metadata import CACHE_FOLDER, MetadataClient
from agent.updater.pace import Limits
from agent.updater.transport import DownloadError, Transport
from shoal.errors import ShoalError, UntrustedError

_Found = TypeVar("_Found")
Transports = Sequence[Transport]
Look = Callable[[MetadataClient, Transports], _Found]
"""What to do with fresh metadata; the transports are those that may be asked for more."""

NO_ANSWER = frozenset({"download-failed", "download-slow", "metadata-missing"})


class Session:
    """What one request needs of trust; every missing piece refuses."""

    def __init__(self, state_dir: Path, limits: Limits, transports: Transports) -> None:
        self.state_dir = state_dir
        self.limits = limits
        self.transports = transports
        self._root = load_root(state_dir)

    @contextmanager
    def floors(self) -> Iterator[Floors]:
        """The floors, while no other process can change them."""
        with hold_trust(self.state_dir):
            floors = read_floors(self.state_dir)
            if floors is None:
                raise UntrustedError(
                    f"{self.state_dir}/{TRUST_FOLDER}: both copies of the floors are gone or "
                    "damaged, so it is not known what was seen before; enrol this device again",
                    code="floors-lost",
                )
            yield floors

    def store(self, before: Floors, after: Floors) -> None:
        """Write changed floors; the lock is held."""
        if after != before:
            write_floors(self.state_dir, after)

    def refresh(self, look: Look[_Found]) -> _Found:
        """Look at newly asked metadata; a transport that is refused makes way for the next.

        A cache nearby may be behind, broken, or lie: whatever it is refused for, another's answer
        may be good. Of refusals, one for what was said counts more than one for silence.
        """
        refused: ShoalError = DownloadError("metadata: no transport to fetch them by")
        for transport in self.transports:
            try:
                return self._look(RemoteFetcher(transport, self.limits), look, [transport])
            except ShoalError as error:
                if refused.code in NO_ANSWER or error.code not in NO_ANSWER:
                    refused = error
        raise refused

    def recall(self, look: Look[_Found]) -> _Found:
        """Look at the metadata of the last refresh, which must still be fresh."""
        cache = self.state_dir / TRUST_FOLDER / CACHE_FOLDER
        return self._look(CacheFetcher(cache), look, [])

    def _look(self, fetcher: MetadataFetcher, look: Look[_Found], transports: Transports) -> _Found:
        with self.floors() as floors:
            client = MetadataClient(self.state_dir, self._root, floors, fetcher)
            try:
                client.refresh()
                return look(client, transports)
            finally:
                self.store(floors, client.floors)
