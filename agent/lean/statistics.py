"""Counting distributions as `shoal.statistics` does, on lists of numbers."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from shoal.baseline import Baseline, FieldBaseline, projection_sign
from shoal.protocol.messages import FieldStatistics

BUFFER_ROWS = 64
Range = tuple[float | None, float | None]


class Tally:
    """Counts, moments and bins of values."""

    def __init__(self, bins: int) -> None:
        self.count = self.missing = self.nonfinite = self.outside = 0
        self.mean = self.m2 = 0.0
        self.min, self.max = math.inf, -math.inf
        self.bins = [0] * bins

    def merge(self, values: Sequence[float]) -> None:
        """Chan, Golub and LeVeque's update of mean and squared deviations by a block."""
        count = len(values)
        mean = math.fsum(values) / count
        total = self.count + count
        delta = mean - self.mean
        deviations = math.fsum((value - mean) ** 2 for value in values)
        self.m2 += deviations + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total


class Field:
    """What is counted of one feature or output."""

    def __init__(self, name: str, edges: list[float], limits: Range) -> None:
        self._name, self._edges = name, edges
        self._low = -math.inf if limits[0] is None else limits[0]
        self._high = math.inf if limits[1] is None else limits[1]
        self._tally = Tally(len(edges) + 1)

    def update(self, column: Sequence[float]) -> None:
        """Count values; NaN is missing, infinite is non-finite."""
        tally = self._tally
        values = [value for value in column if math.isfinite(value)]
        if len(values) != len(column):
            missing = sum(map(math.isnan, column))
            tally.missing += missing
            tally.nonfinite += len(column) - len(values) - missing
        if not values:
            return
        low, high = min(values), max(values)
        if low < self._low or high > self._high:
            tally.outside += sum(not self._low <= value <= self._high for value in values)
        tally.min, tally.max = min(low, tally.min), max(high, tally.max)
        tally.merge(values)
        if self._edges:
            for value in values:
                tally.bins[bisect_right(self._edges, value)] += 1

    def take(self) -> FieldStatistics:
        """Everything since the last call."""
        tally, self._tally = self._tally, Tally(len(self._edges) + 1)
        return FieldStatistics(
            name=self._name,
            count=tally.count,
            missing=tally.missing,
            nonfinite=tally.nonfinite,
            out_of_range=tally.outside,
            mean=_short(tally.mean),
            m2=_short(tally.m2),
            min=_short(tally.min) if tally.count else None,
            max=_short(tally.max) if tally.count else None,
            bins=tally.bins if self._edges else [],
        )


class Accumulator:
    """Counts rows of a fixed set of fields until `take` is called."""

    def __init__(self, names: list[str], edges: list[list[float]], ranges: list[Range]) -> None:
        self._fields = [Field(*one) for one in zip(names, edges, ranges, strict=True)]
        self._rows: list[Sequence[float]] = []

    def update(self, rows: Sequence[Sequence[float]]) -> None:
        """Count rows of as many values as there are fields."""
        self._rows += rows
        if len(self._rows) >= BUFFER_ROWS:
            self._flush()

    def take(self) -> list[FieldStatistics]:
        """Return everything counted since the last call, one entry a field."""
        self._flush()
        return [field.take() for field in self._fields]

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        for field, column in zip(self._fields, zip(*rows, strict=True), strict=False):
            field.update(column)


class Profiler:
    """Counts features, and the projections of them that a baseline asks for."""

    def __init__(self, names: list[str], ranges: list[Range], baseline: Baseline | None) -> None:
        known = {one.name: one.edges for one in baseline.features} if baseline else {}
        self._features = Accumulator(names, [known.get(name, []) for name in names], ranges)
        mixed = baseline.projections if baseline else []
        same = baseline is not None and [one.name for one in baseline.features] == names
        self._weights = _weights(baseline.features, len(mixed)) if baseline and same else []
        self._projections = Accumulator(
            [one.name for one in mixed], [one.edges for one in mixed], [(None, None)] * len(mixed)
        )

    def update(self, rows: Sequence[Sequence[float]]) -> None:
        """Count rows (n, features)."""
        self._features.update(rows)
        if self._weights:
            self._projections.update([self._project(row) for row in rows])

    def take(self) -> list[FieldStatistics]:
        """Features in their order, then projections."""
        return self._features.take() + (self._projections.take() if self._weights else [])

    def _project(self, row: Sequence[float]) -> list[float]:
        return [
            sum((value - mean) * weight for value, (mean, weight) in zip(row, one, strict=True))
            for one in self._weights
        ]


def _weights(fields: list[FieldBaseline], projections: int) -> list[list[tuple[float, float]]]:
    """Mean and signed weight of each feature, a list a projection."""
    root = len(fields) ** 0.5
    return [
        [(one.mean, projection_sign(one.name, index) / ((one.std or 1.0) * root)) for one in fields]
        for index in range(projections)
    ]


def _short(value: float) -> float:
    """Seven significant digits, as `shoal.statistics` sends them."""
    return float(f"{value:.7g}")
