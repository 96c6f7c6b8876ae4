"""Row-by-row sources: CSV and NDJSON files, replayed at a rate or as fast as they go, and stdin.

Rows come as mappings from column to text or number; the selected features are packed as float32.
Empty, `NA`, `NaN` and `null` are missing; any other text that is no number makes the row
unparsable, which is counted. At 100 rows a second and below every row goes out alone; above,
the rows that are due go out together.
"""

from __future__ import annotations

import array
import asyncio
import csv
import itertools
import json
import math
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.ports import Samples
from agent.sources.inject import Fault
from shoal.errors import InvalidInputError

BATCH_ROWS = 64
MAX_LINE_BYTES = 1 << 20
_MISSING = {"", "NA", "NaN", "nan", "null", "None"}

Row = dict[str, Any] | None
"""One row by column; None where the line could not be read."""
Rows = Callable[[], AsyncIterator[list[Row]]]
"""Starts reading from the beginning; yields lists of at most `BATCH_ROWS` rows."""


def csv_rows(options: dict[str, Any]) -> Rows:
    """Rows of a CSV file with a header line."""
    path, delimiter = Path(options["path"]), options.get("delimiter", ",")

    async def read() -> AsyncIterator[list[Row]]:
        try:
            with path.open(newline="", encoding="utf-8") as file:  # noqa: ASYNC230 - 64 rows a turn
                reader = csv.DictReader(file, delimiter=delimiter)
                while chunk := list(itertools.islice(reader, BATCH_ROWS)):
                    yield [None if None in row else row for row in chunk]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InvalidInputError(f"source.path {path}: {error}") from error

    return read


def ndjson_rows(options: dict[str, Any]) -> Rows:
    """Rows of a file with one JSON object a line."""
    path = Path(options["path"])

    async def read() -> AsyncIterator[list[Row]]:
        try:
            with path.open("rb") as file:  # noqa: ASYNC230 - 64 rows a turn
                while lines := list(itertools.islice(file, BATCH_ROWS)):
                    yield [parse_line(line) for line in lines]
        except OSError as error:
            raise InvalidInputError(f"source.path {path}: {error}") from error

    return read


def stdin_rows(options: dict[str, Any]) -> Rows:
    """Rows from standard input, one JSON object a line, as they arrive."""

    async def read() -> AsyncIterator[list[Row]]:
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # a line over the limit
                yield [None]
                continue
            if not line:
                return
            yield [parse_line(line)]

    return read


def parse_line(line: bytes) -> Row:
    """A JSON object, or None."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


class ReplaySource:
    """`agent.ports.Source` over rows by column."""

    def __init__(
        self,
        rows: Rows,
        *,
        rate_hz: float = 0.0,
        loop: bool = False,
        columns: dict[str, str] | None = None,
        time_column: str | None = None,
        faults: list[Fault] | None = None,
    ) -> None:
        self._rows = rows
        self._rate_hz = rate_hz
        self._loop = loop
        self._columns = columns or {}
        self._time_column = time_column
        self.faults = faults or []
        self._features: list[str] = []
        self._dropped: dict[str, int] = {}
        self._noise = random.Random(0)  # noqa: S311 - rehearsal noise, not a secret
        self._number = 0

    def select(self, features: list[str]) -> None:
        """Give these features from the next batch on."""
        self._features = features

    def take_dropped(self) -> dict[str, int]:
        """Unparsable rows since the last call."""
        taken, self._dropped = self._dropped, {}
        return taken

    async def batches(self) -> AsyncIterator[Samples]:
        """Replay, paced against the monotonic clock."""
        started, sent = time.monotonic(), 0
        while True:
            read = 0
            async for chunk in self._rows():
                read += len(chunk)
                for part in self._parts(chunk):
                    if self._rate_hz:
                        due = started + sent / self._rate_hz
                        await asyncio.sleep(max(due - time.monotonic(), 0))
                    sent += len(part)
                    samples = self._pack(part)
                    if samples.times_ms:
                        yield samples
            if not self._loop or not read:
                return

    def _parts(self, chunk: list[Row]) -> Iterator[list[Row]]:
        """Cut a chunk so that no row waits more than about 10 ms for its neighbours."""
        size = BATCH_ROWS if not self._rate_hz else max(1, min(BATCH_ROWS, int(self._rate_hz / 99)))
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]

    def _pack(self, rows: list[Row]) -> Samples:
        values = array.array("f")
        times: list[int] = []
        now_ms = time.time_ns() // 1_000_000
        for row in rows:
            try:
                if row is None:
                    raise ValueError("not a row")
                packed = [self._number_of(row, name) for name in self._features]
                moment = now_ms if self._time_column is None else _time(row[self._time_column])
            except (ValueError, TypeError, KeyError, OverflowError):
                self._dropped["unparsable"] = self._dropped.get("unparsable", 0) + 1
            else:
                values.extend(packed)
                times.append(moment)
            self._number += 1
        if sys.byteorder == "big":
            values.byteswap()
        return Samples(times, values.tobytes(), len(self._features))

    def _number_of(self, row: dict[str, Any], name: str) -> float:
        raw = row[self._columns.get(name, name)]
        if raw is None or (isinstance(raw, str) and raw.strip() in _MISSING):
            value = math.nan
        else:
            value = float(raw)
        for fault in self.faults:
            if fault.feature == name and fault.from_row <= self._number < fault.to_row:
                value = fault.apply(value, self._noise)
        return value


def _time(raw: Any) -> int:
    """Milliseconds from a number of them, or from ISO 8601 text."""
    try:
        return max(int(float(raw)), 0)
    except ValueError:
        return max(int(datetime.fromisoformat(raw).timestamp() * 1000), 0)
