"""Simulated sensor streams: autocorrelated, seasonal, each device with an offset of its own.

Rows are AR(1) with unit deviation; a window's mean is drawn exactly from the law that the rows
would give it (they are jointly normal), which is a thousand times cheaper than the rows and lets a
benchmark see device-years. `row_windows` draws the rows where more than means matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PER_DAY = 288
WINDOW_ROWS = 300
OFFSET = 0.3
SEASON = 0.7


@dataclass(frozen=True, slots=True)
class Law:
    """How the streams behave; deviations in units of the rows' own."""

    rho: float = 0.9
    season: float = SEASON
    offset: float = OFFSET
    common: float = 0.0
    """Deviation of weather that all devices see alike, slow over windows."""
    common_rho: float = 0.995


class MeanStreams:
    """Window means of devices × features."""

    def __init__(self, random: np.random.Generator, devices: int, features: int, law: Law) -> None:
        self._random, self._law = random, law
        shape = (devices, features)
        self._state = random.standard_normal(shape)
        self._offset = law.offset * random.standard_normal(shape)
        phase = random.uniform(0, 2 * np.pi, (1, features))
        self._phase = phase + 0.3 * random.standard_normal(shape)
        self._weather = random.standard_normal((1, features))
        self.number = 0
        j = np.arange(1, WINDOW_ROWS + 1)
        self._from_start, self._carry = float((law.rho**j).mean()), law.rho**WINDOW_ROWS
        into_mean = (1 - law.rho ** (WINDOW_ROWS - j + 1)) / (1 - law.rho) / WINDOW_ROWS
        into_end = law.rho ** (WINDOW_ROWS - j)
        noise = np.stack([into_mean, into_end])
        self._mix = np.linalg.cholesky((1 - law.rho**2) * noise @ noise.T + 1e-18 * np.eye(2))

    def step(self) -> Array:
        """The next window's means (devices, features)."""
        law, draw = self._law, self._random.standard_normal((2, *self._state.shape))
        mean = self._from_start * self._state + self._mix[0, 0] * draw[0]
        end = self._mix[1, 0] * draw[0] + self._mix[1, 1] * draw[1]
        self._state = self._carry * self._state + end
        found: Array = mean + self._offset + season(self.number, self._phase, law.season)
        if law.common:
            fresh = self._random.standard_normal(self._weather.shape)
            fade = (1 - law.common_rho**2) ** 0.5
            self._weather = law.common_rho * self._weather + fade * fresh
            found = found + law.common * self._weather
        self.number += 1
        return found


def season(number: int, phase: Array, amplitude: float) -> Array:
    """The daily course at a window."""
    found: Array = amplitude * np.sin(2 * np.pi * (number + 0.5) / PER_DAY + phase)
    return found


class RowStreams:
    """Rows of devices × features, as the channels a controller watches: means, then spreads."""

    def __init__(self, random: np.random.Generator, devices: int, features: int, law: Law) -> None:
        self._random, self._law = random, law
        shape = (devices, features)
        self._state = random.standard_normal(shape)
        self._offset = law.offset * random.standard_normal(shape)
        phase = random.uniform(0, 2 * np.pi, (1, features))
        self._phase = phase + 0.3 * random.standard_normal(shape)
        self.number = 0

    def rows(self) -> Array:
        """The next window's rows (rows, devices, features)."""
        rho = self._law.rho
        found = self._random.standard_normal((WINDOW_ROWS, *self._state.shape))
        found *= (1 - rho**2) ** 0.5
        state = self._state
        for row in found:
            row += rho * state
            state = row
        self._state = state.copy()
        found += self._offset + season(self.number, self._phase, self._law.season)
        self.number += 1
        return found

    def channels(self) -> Array:
        """Means and cube roots of variances (devices, 2 × features)."""
        return channels(self.rows())


def channels(rows: Array) -> Array:
    """What `controller.drift.channels` makes of rows (rows, devices, features)."""
    return np.concatenate([rows.mean(axis=0), np.cbrt(rows.var(axis=0, ddof=1))], axis=1)
