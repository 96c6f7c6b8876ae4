"""The broker transport: blocks over the agent's own link, which this process asks through its pipe.

A window of blocks is asked for at once; what has not come after a while is asked for again, by a
bitmap. The agent passes messages on and looks into none of them.
"""

from __future__ import annotations

import os
import secrets
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from agent.updater.pace import Pace
from agent.updater.transport import DownloadError, NotThereError, Stream
from agent.updater.wire import Asked, Came, decode_came
from shoal.errors import InvalidInputError
from shoal.protocol.blocks import BLOCK_BYTES, NOT_THERE, OK, BlockRequest, decode_block

WINDOW = 4
"""Blocks in flight."""
AGAIN_SECONDS = 3.0
READ_BYTES = 1 << 20


class LineReader:
    """Lines of a pipe, with a deadline for each."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._buffer = bytearray()

    def read(self, seconds: float | None = None) -> bytes | None:
        """The next line; b"" at the end, None when none came in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while (end := self._buffer.find(b"\n")) < 0:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not select.select([self._handle], [], [], left)[0]:
                return None
            data = os.read(self._handle, READ_BYTES)
            if not data:
                return b""
            self._buffer += data
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line


class BrokerTransport:
    """Documents by way of the agent that started this process."""

    name = "broker"

    def __init__(self, lines: LineReader, say: Callable[[Asked], None]) -> None:
        self._lines = lines
        self._say = say

    @contextmanager
    def open(self, path: str, start: int, pace: Pace) -> Iterator[Stream]:
        """Ask for a document from `start` on; the first block tells whether there is one."""
        transfer = _Transfer(path, start, pace, self._lines, self._say)
        first = transfer.window()
        yield Stream(start, _rest(first, transfer))


def _rest(first: list[bytes], transfer: _Transfer) -> Iterator[bytes]:
    yield from first
    while not transfer.ended:
        yield from transfer.window()


class _Transfer:
    """One document, window by window."""

    def __init__(
        self, path: str, start: int, pace: Pace, lines: LineReader, say: Callable[[Asked], None]
    ) -> None:
        self._path = path
        self._at = start
        self._pace = pace
        self._lines = lines
        self._say = say
        self._id = secrets.token_hex(8)
        self._block_bytes = pace.most(BLOCK_BYTES)
        self._total: int | None = None

    @property
    def ended(self) -> bool:
        """Whether all of it came."""
        return self._total is not None and self._at >= self._total

    def window(self) -> list[bytes]:
        """The next blocks, in order."""
        window = range(1 if self._block_bytes < BLOCK_BYTES else WINDOW)
        found: dict[int, bytes] = {}
        while missing := [i for i in window if i not in found and self._wanted(i)]:
            self._ask(missing)
            self._collect(found, missing)
        blocks = [found[i] for i in sorted(found)]
        self._at += sum(map(len, blocks))
        return blocks

    def _wanted(self, index: int) -> bool:
        beyond = self._at + index * self._block_bytes
        return index == 0 or self._total is None or beyond < self._total

    def _ask(self, missing: list[int]) -> None:
        request = BlockRequest(
            transfer=self._id,
            path=self._path,
            offset=self._at,
            block_bytes=self._block_bytes,
            missing=sum(1 << i for i in missing),
        )
        self._say(Asked(self._id, msgspec.json.encode(request)))

    def _collect(self, found: dict[int, bytes], missing: list[int]) -> None:
        """Take blocks until all came, or none for a while."""
        left = set(missing)
        while left and all(map(self._wanted, left)):
            line = self._lines.read(min(self._pace.wait_seconds(), AGAIN_SECONDS))
            if line is None:
                return
            if not line:
                raise DownloadError(f"broker/{self._path}: the agent is gone")
            came = decode_came(line)
            if came.transfer == self._id:
                self._take(came, found, left)

    def _take(self, came: Came, found: dict[int, bytes], left: set[int]) -> None:
        if not came.payload:
            raise DownloadError(f"broker/{self._path}: not connected")
        try:
            block = decode_block(came.payload)
        except InvalidInputError:
            return
        index, offset = divmod(block.begin - self._at, self._block_bytes)
        if block.status == NOT_THERE:
            raise NotThereError(f"broker/{self._path}: not there", 404)
        if block.status != OK or offset or index not in left:
            return
        self._pace.count(len(block.data))
        self._total = block.total
        size = min(self._block_bytes, max(block.total - block.begin, 0))
        if len(block.data) == size:
            found[index] = block.data
            left.discard(index)
        left -= {i for i in left if not self._wanted(i)}
