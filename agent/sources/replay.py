"""CSV and NDJSON files, replayed at a rate, at the speed they were recorded, or as fast as they go.

At 100 rows a second and below every row goes out alone; above, the rows that are due go out
together. Without a pace the file waits for the model; with one it is a live sensor, which does not.
"""

from __future__ import annotations

import asyncio
import csv
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from agent.options import Key
from agent.ports import Samples
from agent.sources.kinds import SourceContext, SourceKind
from agent.sources.rows import ROW_KEYS, Packer, Row, parse_row
from agent.sources.tally import Tally
from shoal.errors import InvalidInputError

BATCH_ROWS = 64
MAX_PAUSE_SECONDS = 3600.0

Rows = Callable[[], AsyncIterator[list[Row]]]
"""Starts reading from the beginning; yields lists of at most `BATCH_ROWS` rows."""


def csv_rows(path: Path, delimiter: str = ",") -> Rows:
    """Rows of a CSV file with a header line."""

    async def read() -> AsyncIterator[list[Row]]:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, delimiter=delimiter)
                while chunk := list(itertools.islice(reader, BATCH_ROWS)):
                    yield [None if None in row else row for row in chunk]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InvalidInputError(f"source.path {path}: {error}") from error

    return read


def ndjson_rows(path: Path) -> Rows:
    """Rows of a file with one JSON object a line."""

    async def read() -> AsyncIterator[list[Row]]:
        try:
            with path.open("rb") as file:
                while lines := list(itertools.islice(file, BATCH_ROWS)):
                    yield [parse_row(line) for line in lines]
        except OSError as error:
            raise InvalidInputError(f"source.path {path}: {error}") from error

    return read


class ReplaySource:
    """`agent.ports.Source` over a file's rows."""

    def __init__(
        self,
        rows: Rows,
        packer: Packer,
        tally: Tally,
        *,
        rate_hz: float = 0.0,
        speed: float = 0.0,
        loop: bool = False,
    ) -> None:
        self._rows = rows
        self._packer = packer
        self._tally = tally
        self._rate_hz = rate_hz
        self._speed = speed
        self._loop = loop
        self.faults = packer.faults
        self.live = rate_hz > 0 or speed > 0

    def select(self, features: list[str]) -> None:
        """Give these features from the next batch on."""
        self._packer.select(features)

    def take_dropped(self) -> dict[str, int]:
        """Rows it could not use since the last call."""
        return self._tally.take()

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Replay, paced against the monotonic clock."""
        pace = _RowPace(self._rate_hz) if self._rate_hz else None
        while True:
            read = 0
            recorded = _RecordedPace(self._speed) if self._speed else None
            async for chunk in self._rows():
                read += len(chunk)
                for part in self._parts(chunk):
                    if pace is not None:
                        await pace.wait(len(part))
                    if recorded is not None:
                        await recorded.wait(self._packer.moment(part[0]))
                    samples = self._packer.pack(part)  # after the wait: a swap may have been in it
                    if samples.times_ms:
                        yield samples
            if not self._loop or not read:
                return

    def _parts(self, chunk: list[Row]) -> Iterator[list[Row]]:
        """Cut a chunk so that no row waits more than about 10 ms for its neighbours."""
        size = BATCH_ROWS
        if self._rate_hz:
            size = max(1, min(BATCH_ROWS, int(self._rate_hz / 99)))
        elif self._speed:
            size = 1
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]


class _RowPace:
    """So many rows a second."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._started, self._sent = time.monotonic(), 0

    async def wait(self, rows: int) -> None:
        due = self._started + self._sent / self._rate_hz
        self._sent += rows
        await asyncio.sleep(max(due - time.monotonic(), 0))


class _RecordedPace:
    """As the file's own times say, `speed` times as fast; pauses are cut to an hour."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._due = time.monotonic()
        self._before: int | None = None

    async def wait(self, time_ms: int | None) -> None:
        if time_ms is None:
            return
        if self._before is not None:
            pause = max(time_ms - self._before, 0) / 1000 / self._speed
            self._due += min(pause, MAX_PAUSE_SECONDS)
        self._before = time_ms
        await asyncio.sleep(max(self._due - time.monotonic(), 0))


_FILE_KEYS = {
    "path": Key("text"),
    "rate_hz": Key("number", 0.0, 0, 1e6),
    "speed": Key("number", 0.0, 0, 1e6),
    "loop": Key("bool", False),
    **ROW_KEYS,
}


def _problems(at: str, options: dict[str, Any]) -> list[str]:
    Packer.of(options, Tally())
    found = []
    if options["speed"] and options["rate_hz"]:
        found.append(f"{at}.speed: rate_hz is set too; expected one of them")
    if options["speed"] and not options["time_column"]:
        found.append(f"{at}.speed: needs time_column")
    return found


def _replay(rows: Rows, options: dict[str, Any], context: SourceContext) -> ReplaySource:
    return ReplaySource(
        rows,
        Packer.of(options, context.tally),
        context.tally,
        rate_hz=options["rate_hz"],
        speed=options["speed"],
        loop=options["loop"],
    )


CSV = SourceKind(
    {**_FILE_KEYS, "delimiter": Key("text", ",")},
    lambda options, context: _replay(
        csv_rows(Path(options["path"]), options["delimiter"]), options, context
    ),
    _problems,
)
NDJSON = SourceKind(
    _FILE_KEYS,
    lambda options, context: _replay(ndjson_rows(Path(options["path"])), options, context),
    _problems,
)
