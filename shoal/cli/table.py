"""A user's CSV as training rows: columns chosen by name, numbers or missing, nothing guessed.

Missing cells are those that the agent's CSV source takes for missing. Any other text that is no
number is a mistake of one sentence that names file, column and line.
"""

from __future__ import annotations

import array
import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from shoal.errors import InvalidInputError

MISSING = {"", "NA", "NaN", "nan", "null", "None"}
SEPARATORS = ",;\t|"
MAX_CSV_BYTES = 1024**3
MAX_NUMBER = 1e15
"""Above, squares and their sums leave float32."""
MAX_NAMES_SHOWN = 12
_REPORT_ROWS = 4096

OnProgress = Callable[[int, int], None]
"""Told how much is done, of how much in all."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows (n, columns) as float32, NaN where missing."""

    columns: list[str]
    rows: NDArray[np.float32]


def read_table(
    path: Path,
    columns: list[str] | None = None,
    *,
    time_column: str | None = None,
    separator: str | None = None,
    on_bytes: OnProgress = lambda done, total: None,
) -> Table:
    """Read `columns`, or all but the time column; `InvalidInputError` names the first mistake."""
    what = f"CSV {path}"
    try:
        size = path.stat().st_size
        if size > MAX_CSV_BYTES:
            raise InvalidInputError(f"{what}: {size} bytes, at most {MAX_CSV_BYTES} are read")
        with path.open("rb") as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            header = text.readline()
            separator = separator or sniff_separator(header)
            names = next(csv.reader([header], delimiter=separator, strict=True), [])
            chosen = _choose(what, names, columns, time_column)
            hint = "" if columns else "; leave a column out with --features or --time-column"
            lines = _Lines(what, names, chosen, hint)
            values = array.array("f")
            for number, parsed in enumerate(lines.parse(text, separator), 1):
                values.extend(parsed)
                if number % _REPORT_ROWS == 0:
                    on_bytes(raw.tell(), size)
    except OSError as error:
        raise InvalidInputError(f"{what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{what}: expected UTF-8 text, got {error.reason}") from error
    except csv.Error as error:
        raise InvalidInputError(f"{what}: expected CSV with a header line, got {error}") from error
    rows = np.frombuffer(values, np.float32).reshape(-1, len(chosen))
    return Table([names[i] for i in chosen], rows)


def read_labels(path: Path, column: str) -> list[str]:
    """One column as text, a row each, of a CSV that `read_table` reads too."""
    what = f"CSV {path}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            separator = sniff_separator(text.readline())
            text.seek(0)
            lines = [cells for cells in csv.reader(text, delimiter=separator) if cells]
    except OSError as error:
        raise InvalidInputError(f"{what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{what}: expected UTF-8 text, got {error.reason}") from error
    except csv.Error as error:
        raise InvalidInputError(f"{what}: expected CSV with a header line, got {error}") from error
    names = lines[0] if lines else []
    if column not in names:
        raise InvalidInputError(f"{what}: no label column {column!r}, got {_shown(names)}")
    place = names.index(column)
    return [cells[place].strip() if place < len(cells) else "" for cells in lines[1:]]


def sniff_separator(header: str) -> str:
    """The separator that cuts the header line into most columns; a comma where none does."""

    def columns(separator: str) -> int:
        return len(next(csv.reader([header], delimiter=separator), []))

    return max(SEPARATORS, key=columns)


def _choose(
    what: str, names: list[str], columns: list[str] | None, time_column: str | None
) -> list[int]:
    """Places of the wanted columns, in the order they were asked for."""
    if not any(names):
        raise InvalidInputError(f"{what}: expected a header line with column names, got none")
    if time_column is not None and time_column not in names:
        raise InvalidInputError(f"{what}: no column {time_column!r}, got {_shown(names)}")
    wanted = columns or [name for name in names if name != time_column]
    for name in wanted:
        if name not in names:
            raise InvalidInputError(f"{what}: no column {name!r}, got {_shown(names)}")
        if not 1 <= len(name) <= 80:
            raise InvalidInputError(
                f"{what}: column {names.index(name) + 1} is called {name[:80]!r}, "
                "expected a name of 1 to 80 characters"
            )
        if names.count(name) > 1 or wanted.count(name) > 1:
            raise InvalidInputError(f"{what}: column {name!r} is named twice, expected once")
    if time_column in wanted or not wanted:
        raise InvalidInputError(
            f"{what}: expected at least one feature beside time column {time_column!r}, "
            f"got {_shown(wanted)}"
        )
    return [names.index(name) for name in wanted]


class _Lines:
    """Parses lines of cells; every mistake names the line."""

    def __init__(self, what: str, names: list[str], chosen: list[int], hint: str) -> None:
        self._what = what
        self._names = names
        self._chosen = chosen
        self._hint = hint

    def parse(self, text: TextIO, separator: str) -> Iterator[list[float]]:
        width, chosen, end = len(self._names), self._chosen, 1
        reader = csv.reader(text, delimiter=separator, strict=True)
        for cells in reader:
            line, end = end + 1, 1 + reader.line_num  # a quoted cell may hold line ends
            if not cells:
                continue
            if len(cells) != width:
                raise InvalidInputError(
                    f"{self._what}, line {line}: expected {width} cells as in the header, "
                    f"got {len(cells)}"
                )
            try:
                yield [_number(cells[i]) for i in chosen]
            except ValueError:
                raise self._bad_cell(cells, line) from None

    def _bad_cell(self, cells: list[str], line: int) -> InvalidInputError:
        place = next(i for i in self._chosen if not _is_number(cells[i]))
        return InvalidInputError(
            f"{self._what}, column {self._names[place]!r}, line {line}: expected a number "
            f"of at most {MAX_NUMBER:g}, got {cells[place][:80]!r}{self._hint}"
        )


def _number(cell: str) -> float:
    cell = cell.strip()
    if cell in MISSING:
        return math.nan
    value = float(cell)
    if abs(value) > MAX_NUMBER:
        raise ValueError("too large")
    return value


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return ", ".join(repr(name) for name in names[:MAX_NAMES_SHOWN]) + more
