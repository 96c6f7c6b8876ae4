"""Did a stream change? Sequential tests of window statistics, for many devices at once.

A row is a device, a column one number a window gives (the mean of a feature, say). Each is compared
with its own course, learned per device, and with its peers at the same time:

    residual    value less the device's own daily course (harmonics, least squares that forgets)
    peers       less the median of all devices' residuals: what all see alike is weather
    innovation  less what the residual before predicts, since windows of slow sensors are alike
    charts      two-sided CUSUM, fast (k = 1) for large and slow (k = 0.35) for small shifts

CUSUM after Page (Biometrika 41, 1954); residual charts on autocorrelated data after Alwan and
Roberts (JBES 6, 1988). Limits are set for less than one false alarm a device and year with 8
features and windows of 5 minutes; `scripts/bench drift` measures it.

No clock, no database: `step` takes a bucket's number and its values.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

DAY_SECONDS = 86400.0
RIDGE = 1.0
"""Pseudo-windows that pull daily harmonics to 0 while a day has not been seen."""
MAX_PHI = 0.95
LAST = "last_number"
LEARN_LIMIT = 6.0
"""Values further from the course than this many deviations are learned as if only so far."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a change is looked for; the same everywhere one is named."""

    bucket_seconds: float = 300.0
    learn_days: float = 7.0
    """A channel is not judged before; in the last third the charts run on trial."""
    half_life_days: float = 14.0
    """The course follows slow change, so that seasons are not alarms."""
    harmonics: int = 3
    charts: tuple[tuple[float, float], ...] = ((1.0, 7.4), (0.35, 20.5))
    """Reference value k and limit h of each chart, in standard deviations."""
    clip: float = 4.0
    """One window counts no more than this, so no single one raises an alarm."""
    min_peers: int = 8
    min_rows: int = 30
    """A bucket with fewer rows tells nothing."""

    @property
    def per_day(self) -> float:
        """Buckets a day."""
        return DAY_SECONDS / self.bucket_seconds

    @property
    def learn(self) -> float:
        """Buckets to learn."""
        return self.learn_days * self.per_day


class Standing(IntEnum):
    """What is known of a channel."""

    LEARNING = 0
    WATCHING = 1
    DRIFTING = 2
    UNCALIBRATED = 3
    """It would have alarmed on its own learning data: it says so and never pages."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one bucket showed, each (rows, columns)."""

    standing: NDArray[np.int8]
    level: Array
    """The highest chart, signed, as a share of its limit."""
    expected: Array
    deviation: Array
    """Standard deviation of the residual."""
    residual: Array
    """Residual in standard deviations, before peers; NaN where unknown."""
    since: NDArray[np.int64]
    """Bucket in which the chart that is highest left 0: about when the change began."""
    counted: Mask
    """Channels judged in this bucket."""


class Detector:
    """The state of all charts of some rows and columns."""

    def __init__(self, rule: Rule, floors: Array, stretch: Array) -> None:
        """Begin without rows.

        `floors` (columns,): the least deviation a residual is given, in the column's unit.
        `stretch` (columns,): factor on the charts' limits, for noise with heavier tails.
        """
        columns = len(floors)
        self.rule = rule
        self._floors = floors
        self._stretch = stretch
        self._width = 2 * rule.harmonics + 1
        self._last: int | None = None
        self._rows = 0
        self._columns = columns
        self._arrays: dict[str, NDArray[Any]] = self._blank(0)

    @property
    def rows(self) -> int:
        """How many."""
        return self._rows

    def resize(self, rows: int) -> None:
        """Make room for more rows; they start to learn."""
        fresh = self._blank(rows - self._rows)
        self._arrays = {
            name: np.concatenate([array, fresh[name]], axis=_row_axis(name))
            for name, array in self._arrays.items()
        }
        self._rows = rows

    def forget(self, row: int) -> None:
        """Learn a row anew."""
        fresh = self._blank(1)
        for name, array in self._arrays.items():
            if _row_axis(name):
                array[:, :, row] = fresh[name][:, :, 0]
            else:
                array[row] = fresh[name][0]

    def accept(self, row: int, column: int) -> None:
        """Take the present level of a channel as normal: the charts start again."""
        a = self._arrays
        a["charts"][:, :, row, column] = 0
        a["drifting"][row, column] = False
        shift = a["last"][row, column]
        if np.isfinite(shift):
            a["xy"][row, :, column] += a["xx"][row, :, 0] * shift
            a["coefficients"][row, 0, column] += shift
            a["last"][row, column] = 0.0

    def step(self, number: int, values: Array, weights: Array) -> Step:
        """Take bucket `number`: `values` (rows, columns), NaN where unknown; `weights` (rows,)."""
        rule, a = self.rule, self._arrays
        basis = _basis(number, rule)
        present = np.isfinite(values) & (weights >= rule.min_rows)[:, None]
        expected = np.einsum("p,rpc->rc", basis, a["coefficients"])
        residual = np.where(present, values - expected, np.nan)
        residual *= _scale(weights, a["weight"])[:, None]
        deviation = self._deviation()
        own = residual / deviation
        settled = a["seen"] >= rule.learn / 3
        compared = own - self._peers(np.where(settled[:, None], own, np.nan))
        standard = self._whiten(compared, number, settled)
        self._learn(basis, values, expected, deviation, present, weights)
        standing, counted = self._judge(number, standard)
        level, since = self._levels()
        self._last = number
        return Step(standing, level, expected, deviation, own, since, counted)

    def dump(self) -> bytes:
        """All state, to go on later."""
        buffer = io.BytesIO()
        last = np.array(-1 if self._last is None else self._last)
        stored: dict[str, Any] = {LAST: last, **self._arrays}
        np.savez_compressed(buffer, **stored)
        return buffer.getvalue()

    @classmethod
    def load(cls, data: bytes, rule: Rule, floors: Array, stretch: Array) -> Detector:
        """Go on from `dump`; a state of another shape is refused with `ValueError`."""
        found = cls(rule, floors, stretch)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name != LAST}
            last = int(stored[LAST])
        rows = len(arrays.get("seen", ()))
        for name, blank in found._blank(rows).items():
            if name not in arrays or arrays[name].shape != blank.shape:
                raise ValueError(
                    f"drift state: {name} is not of {rows} rows, {len(floors)} columns"
                )
        found._arrays, found._rows = arrays, rows
        found._last = None if last < 0 else last
        return found

    def _blank(self, rows: int) -> dict[str, NDArray[Any]]:
        shape = (rows, self._columns)
        charts = (len(self.rule.charts), 2, *shape)
        ridge = np.diag([1e-6] + [RIDGE] * (self._width - 1))
        return {
            "xx": np.broadcast_to(ridge, (rows, self._width, self._width)).copy(),
            "xy": np.zeros((rows, self._width, self._columns)),
            "coefficients": np.zeros((rows, self._width, self._columns)),
            "seen": np.zeros(rows),
            "weight": np.zeros(rows),
            "squares": np.zeros(shape),
            "scale_squares": np.zeros(shape),
            "products": np.zeros(shape),
            "counted": np.zeros(shape),
            "before": np.full(shape, np.nan),
            "last": np.full(shape, np.nan),
            "quiet": np.zeros(shape),
            "drifting": np.zeros(shape, bool),
            "charts": np.zeros(charts),
            "since": np.zeros(charts, np.int64),
        }

    def _deviation(self) -> Array:
        """Of residuals about the course; 1 while unknown."""
        a = self._arrays
        squares = a["scale_squares"] / np.maximum(a["counted"], 1)
        found: Array = np.where(a["counted"] > 2, np.sqrt(squares), 1.0)
        return np.maximum(found, self._floors)

    def _peers(self, own: Array) -> Array | float:
        """The median of each column, where enough rows tell it."""
        enough = np.isfinite(own).sum(axis=0) >= self.rule.min_peers
        if not enough.any():
            return 0.0
        median = np.zeros(own.shape[1])
        median[enough] = np.nanmedian(own[:, enough], axis=0)
        return median

    def _whiten(self, compared: Array, number: int, settled: Mask) -> Array:
        """Innovations in standard deviations, and learn how residuals follow each other."""
        a = self._arrays
        follows = self._last is not None and number == self._last + 1
        before = a["before"] if follows else np.full_like(compared, np.nan)
        mean_square = a["squares"] / np.maximum(a["counted"], 1)
        phi = np.clip(a["products"] / np.maximum(a["squares"], 1e-12), 0.0, MAX_PHI)
        known = np.isfinite(before)
        phi = np.where(known, phi, 0.0)
        error = compared - phi * np.where(known, before, 0.0)
        spread = np.sqrt(np.maximum(mean_square, 1e-6) * (1 - phi**2))
        ready = np.isfinite(compared) & settled[:, None] & (a["counted"] > 2)
        standard = np.where(ready, np.clip(error / spread, -self.rule.clip, self.rule.clip), np.nan)
        learn = np.isfinite(compared) & settled[:, None] & ~a["drifting"]
        fade = self._fade
        limited = np.clip(compared, -LEARN_LIMIT, LEARN_LIMIT)
        pairs = np.where(learn & known, limited * np.clip(before, -LEARN_LIMIT, LEARN_LIMIT), 0.0)
        _add(a["squares"], learn, fade, limited**2)
        _add(a["products"], learn, fade, pairs)
        a["before"] = compared
        return standard

    @property
    def _fade(self) -> float:
        return float(0.5 ** (1 / (self.rule.half_life_days * self.rule.per_day)))

    def _learn(
        self,
        basis: Array,
        values: Array,
        expected: Array,
        deviation: Array,
        present: Mask,
        weights: Array,
    ) -> None:
        """Let the course and the deviations follow, but not while a channel drifts."""
        a, rule, fade = self._arrays, self.rule, self._fade
        here = present.any(axis=1)
        settled = (a["seen"] >= rule.learn / 3)[:, None]
        learns = present & ~a["drifting"]
        reach = np.where(settled, LEARN_LIMIT * deviation, np.inf)
        off = np.where(learns, values - expected, 0.0)
        taken = expected + np.clip(off, -reach, reach)
        keep = np.where(here, fade, 1.0)
        a["xx"] *= keep[:, None, None]
        a["xy"] *= keep[:, None, None]
        a["xx"][here] += np.outer(basis, basis)
        a["xy"][here] += basis[None, :, None] * taken[here][:, None, :]
        _add(a["scale_squares"], learns & settled, fade, np.clip(off, -reach, reach) ** 2)
        _add(a["counted"], learns & settled, fade, np.ones_like(off))
        a["last"] = np.where(present, values - expected, a["last"])
        a["seen"] += here
        rising = np.where(a["weight"] > 0, 0.02, 1.0)
        a["weight"] += np.where(here, rising * (weights - a["weight"]), 0.0)
        due = here & ((a["seen"] % 12 == 0) | (a["seen"] < 12))
        if due.any():
            a["coefficients"][due] = np.linalg.solve(a["xx"][due], a["xy"][due])

    def _judge(self, number: int, standard: Array) -> tuple[NDArray[np.int8], Mask]:
        """Move the charts and say where each channel stands."""
        a, rule = self._arrays, self.rule
        counted = np.isfinite(standard)
        z = np.where(counted, standard, 0.0)
        on_trial = counted & (a["seen"] >= rule.learn * 2 / 3)[:, None]
        alarm = np.zeros(z.shape, bool)
        calm = np.ones(z.shape, bool)
        for (k, limit), chart, since in zip(rule.charts, a["charts"], a["since"], strict=True):
            h = limit * self._stretch
            for side, sign in ((0, 1.0), (1, -1.0)):
                moved = np.clip(chart[side] + sign * z - k, 0.0, 2 * h)
                since[side] = np.where(chart[side] == 0, number, since[side])
                chart[side] = np.where(on_trial, moved, chart[side])
                alarm |= chart[side] > h
                calm &= chart[side] < h / 2
        ready = (a["seen"] >= rule.learn)[:, None] & (a["quiet"] >= rule.learn / 3)
        trial = alarm & ~ready
        a["charts"][:, :, trial] = 0.0
        a["quiet"] = np.where(trial, 0.0, a["quiet"] + on_trial)
        a["drifting"] = np.where(ready, (alarm | a["drifting"]) & ~calm, a["drifting"] & ready)
        late = (a["seen"] >= 2 * rule.learn)[:, None]
        standing = np.where(late, Standing.UNCALIBRATED, Standing.LEARNING)
        standing = np.where(ready, Standing.WATCHING, standing)
        standing = np.where(a["drifting"], Standing.DRIFTING, standing)
        return standing.astype(np.int8), counted

    def _levels(self) -> tuple[Array, NDArray[np.int64]]:
        charts, since = self._arrays["charts"], self._arrays["since"]
        limits = np.array([h for _, h in self.rule.charts])[:, None, None, None] * self._stretch
        flat = (charts / limits).reshape(-1, *charts.shape[2:])
        best = flat.argmax(axis=0)[None]
        level = np.take_along_axis(flat, best, 0)[0] * np.where(best[0] % 2, -1.0, 1.0)
        return level, np.take_along_axis(since.reshape(flat.shape), best, 0)[0]


def _add(total: NDArray[Any], where: Mask, fade: float, amount: Array) -> None:
    """Fade what is there and add, in place, only where something is learned."""
    np.copyto(total, total * fade + amount, where=where)


def _basis(number: int, rule: Rule) -> Array:
    """1 and the harmonics of the day at the middle of a bucket."""
    turn = 2 * np.pi * (((number + 0.5) * rule.bucket_seconds) % DAY_SECONDS) / DAY_SECONDS
    orders = np.arange(1, rule.harmonics + 1)
    return np.concatenate([[1.0], np.sin(orders * turn), np.cos(orders * turn)])


def _scale(weights: Array, usual: Array) -> Array:
    """A bucket with fewer rows than usual is noisier: its residual counts less."""
    return np.sqrt(np.clip(weights / np.maximum(usual, 1.0), 0.0, 1.0))


def _row_axis(name: str) -> int:
    return 2 if name in ("charts", "since") else 0
