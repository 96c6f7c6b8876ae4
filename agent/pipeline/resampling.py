"""Rows at the rate the model was made for, whatever rate they come at.

Grid times are the first row's time and every 1/rate after it. A grid row is made when the first
row after its time comes, from

- `last`: the last row up to it,
- `mean`: the mean of the rows since the grid time before, by feature; of none, the last row,
- `linear`: the straight line between the rows around it.

Pure. Rows come in order (`conditioning` sees to that) and pauses have a limit, so a grid never
runs away. Every row that came is either a grid row or merged into one; grid rows beyond those that
came are made.
"""

from __future__ import annotations

import array
import math
from collections import Counter
from typing import Literal

from agent.pipeline.accounting import RESAMPLED
from agent.ports import Samples

Method = Literal["last", "mean", "linear"]
Row = list[float]


class Resampler:
    """The grid of one contract."""

    def __init__(self, method: Method, rate_hz: float, width: int) -> None:
        self._method = method
        self._period_ms = 1000.0 / rate_hz
        self._width = width
        self._origin_ms: int | None = None
        self._number = 0
        self._last: tuple[int, Row] | None = None
        self._sums: Row = []
        self._counts: list[int] = []
        self._pending = 0
        self._merged = 0
        self._made = 0

    def push(self, samples: Samples) -> Samples:
        """Take rows, in order; return the grid rows that are complete."""
        times: list[int] = []
        grid = array.array("f")
        values = array.array("f", samples.values)
        for at, ms in enumerate(samples.times_ms):
            row = values[at * self._width : (at + 1) * self._width].tolist()
            if self._origin_ms is None:
                self._origin_ms, self._number = ms, 0
                self._clear()
            if self._due() < ms:
                self._fill(times, grid, math.nextafter(ms, 0), row)
            self._add(ms, row)
        return Samples(times, grid.tobytes(), self._width)

    def finish(self) -> Samples:
        """No more rows come: the grid rows up to the last one, then nothing is owed."""
        times: list[int] = []
        grid = array.array("f")
        if self._last is not None and self._origin_ms is not None:
            self._fill(times, grid, self._last[0], self._last[1])
        self.restart()
        return Samples(times, grid.tobytes(), self._width)

    def restart(self) -> None:
        """Begin a new grid with the next row; what was not used yet is merged."""
        self._merged += self._pending
        self._pending = 0
        self._origin_ms, self._last = None, None

    def take_merged(self) -> Counter[str]:
        """Rows that became no grid row of their own since the last call."""
        taken, self._merged = self._merged, 0
        return Counter({RESAMPLED: taken} if taken else {})

    def take_made(self) -> int:
        """Grid rows beyond the rows that came, since the last call."""
        taken, self._made = self._made, 0
        return taken

    def _fill(
        self, times: list[int], grid: array.array[float], until: float, following: Row
    ) -> None:
        """Make the grid rows up to a time; each uses up one row that came before it, the rest of
        those are merged."""
        made = 0
        while (due := self._due()) <= until:
            times.append(round(due))
            grid.extend(self._row_at(due, until, following))
            self._number += 1
            self._clear()
            made += 1
        if made:
            used = min(made, self._pending)
            self._made += made - used
            self._merged += self._pending - used
            self._pending = 0

    def _due(self) -> float:
        assert self._origin_ms is not None
        return self._origin_ms + self._number * self._period_ms

    def _add(self, ms: int, row: Row) -> None:
        self._pending += 1
        self._last = (ms, row)
        if self._method == "mean":
            for at, value in enumerate(row):
                if value == value:
                    self._sums[at] += value
                    self._counts[at] += 1

    def _clear(self) -> None:
        if self._method == "mean":
            self._sums, self._counts = [0.0] * self._width, [0] * self._width

    def _row_at(self, due: float, next_ms: float, following: Row) -> Row:
        if self._last is None:
            return following
        before_ms, before = self._last
        if self._method == "mean" and any(self._counts):
            return [
                total / count if count else math.nan
                for total, count in zip(self._sums, self._counts, strict=True)
            ]
        if self._method == "linear" and next_ms > before_ms:
            share = (due - before_ms) / (next_ms - before_ms)
            return [a + (b - a) * share for a, b in zip(before, following, strict=True)]
        return before
