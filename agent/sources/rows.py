"""From rows by column to packed float32: which column is which feature, what is missing, when.

A column is a key of the row, or a path into nested JSON when it begins with `$`:
`$.data.sensors[0].t`. Empty text, `NA`, `NaN` and `null` are missing; other text that is no
number makes the row unparsable, which is counted.
"""

from __future__ import annotations

import array
import json
import math
import random
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from agent.options import Key
from agent.ports import Samples
from agent.sources.inject import Fault, parse_faults
from agent.sources.tally import UNPARSABLE, Tally
from shoal.errors import InvalidInputError
from shoal.times import parse_time_ms

MISSING = {"", "NA", "NaN", "nan", "null", "None"}
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]")

Row = dict[str, Any] | None
"""One row by column; None where it could not be read."""

ROW_KEYS = {
    "columns": Key("table", {}),
    "time_column": Key("text", ""),
    "time_unit": Key("text", "ms", choices=("ms", "s")),
    "inject": Key("tables", []),
}
"""Keys that every source of rows by column knows."""


class ColumnPath:
    """A path into nested JSON: `$.a.b[0]`."""

    def __init__(self, text: str) -> None:
        self._steps: list[str | int] = []
        at = 1
        while at < len(text):
            match = _STEP.match(text, at)
            if match is None:
                raise InvalidInputError(
                    f"path {text!r}: expected .name or [number] at character {at + 1}"
                )
            self._steps.append(match[1] if match[2] is None else int(match[2]))
            at = match.end()

    def find(self, document: Any) -> Any:
        """The value there; `KeyError`, `IndexError` or `TypeError` where there is none."""
        for step in self._steps:
            if isinstance(document, str):
                raise TypeError("text has no parts")
            document = document[step]
        return document


def parse_json(line: bytes) -> Any:
    """A JSON document, tolerant of NaN and Infinity; None where it is none."""
    try:
        return _decode(line)
    except msgspec.DecodeError:
        try:
            return json.loads(line)  # knows NaN, which others write
        except (ValueError, RecursionError):
            return None
    except (UnicodeDecodeError, RecursionError):
        return None


_decode = msgspec.json.Decoder().decode


def parse_row(line: bytes) -> Row:
    """A JSON object, or None."""
    row = parse_json(line)
    return row if isinstance(row, dict) else None


class Packer:
    """Packs rows for the features that are selected."""

    def __init__(
        self,
        tally: Tally,
        columns: Mapping[str, str] | None = None,
        time_column: str = "",
        time_unit: str = "ms",
        faults: list[Fault] | None = None,
    ) -> None:
        self._tally = tally
        self._columns = {k: _column(v) for k, v in (columns or {}).items()}
        self._time = _column(time_column) if time_column else None
        self._to_ms = 1000.0 if time_unit == "s" else 1.0
        self.faults = faults or []
        self._plan: list[tuple[str | ColumnPath, str]] = []
        self._noise = random.Random(0)  # noqa: S311 - rehearsal noise, not a secret
        self._number = 0

    @classmethod
    def of(cls, options: Mapping[str, Any], tally: Tally) -> Packer:
        """From the keys of `ROW_KEYS`."""
        return cls(
            tally,
            options["columns"],
            options["time_column"],
            options["time_unit"],
            parse_faults(options["inject"]),
        )

    def select(self, features: list[str]) -> None:
        """Pack these features from the next call on."""
        self._plan = [(self._columns.get(name, name), name) for name in features]

    def pack(self, rows: list[Row]) -> Samples:
        """Pack what can be read; count and name the rest."""
        values = array.array("f")
        times: list[int] = []
        now_ms = time.time_ns() // 1_000_000
        for row in rows:
            try:
                if row is None:
                    raise ValueError("not a row")
                packed = [_number(_find(row, column)) for column, _ in self._plan]
                moment = now_ms if self._time is None else self._moment(_find(row, self._time))
                if self.faults:
                    packed = self._injected(packed)
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                self._tally.drop(UNPARSABLE, f"row {self._number}: {_words(error)}: {_cut(row)}")
            else:
                values.extend(packed)
                times.append(moment)
            self._number += 1
        if sys.byteorder == "big":
            values.byteswap()
        return Samples(times, values.tobytes(), len(self._plan))

    def moment(self, row: Row) -> int | None:
        """The row's own time in ms, None where it has none."""
        try:
            if row is None or self._time is None:
                return None
            return self._moment(_find(row, self._time))
        except (ValueError, TypeError, LookupError, OverflowError):
            return None

    def _injected(self, packed: list[float]) -> list[float]:
        for fault in self.faults:
            if fault.from_row <= self._number < fault.to_row:
                packed = [
                    fault.apply(value, self._noise) if name == fault.feature else value
                    for value, (_, name) in zip(packed, self._plan, strict=True)
                ]
        return packed

    def _moment(self, raw: Any) -> int:
        """Milliseconds from a number, or from ISO 8601 text."""
        return parse_time_ms(raw, self._to_ms)


def _column(text: str) -> str | ColumnPath:
    return ColumnPath(text) if text.startswith("$") else text


def _find(row: dict[str, Any], column: str | ColumnPath) -> Any:
    return row[column] if isinstance(column, str) else column.find(row)


def _number(raw: Any) -> float:
    if type(raw) is float:
        return raw
    if raw is None or (isinstance(raw, str) and raw.strip() in MISSING):
        return math.nan
    return float(raw)


def _words(error: Exception) -> str:
    return f"has no {error}" if isinstance(error, KeyError) else str(error)


def _cut(row: Row) -> str:
    text = repr(row)
    return text if len(text) <= 120 else text[:120] + "…"
