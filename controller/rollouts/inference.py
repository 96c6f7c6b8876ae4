"""Is the difference between a canary and its control more than chance? Pure.

The unit is the device: rows of one device are alike, so each gives one number, its change from
before the release to after. Canary and control lived through the same weather, so a difference of
these changes (difference in differences) is the release's. It is judged by permutation of devices,
which needs no law of the noise and holds with few; looks spend the error of the whole soak, so
looking often does not raise it (Bonferroni over the looks; O'Brien and Fleming would spend less
early and gain nothing here, since bad releases show at once).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Side = Literal["above", "both"]

EXACT = 20_000
"""Up to so many arrangements are all tried; of more, as many are drawn."""
MANY = 20
"""With as many devices on both sides Welch's t is as good as trying arrangements, and free."""
LOOKS = 6
ERROR = 0.01
"""Chance that a harmless release is stopped by any gate at any look of a soak."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Canary less control, with what it is worth."""

    value: float
    low: float
    high: float
    """Two-sided interval at the look's level, by Welch."""
    p: float
    """Of a difference like this or larger if the release changed nothing beyond the margin."""
    canary: int
    control: int
    level: float

    @property
    def harmful(self) -> bool:
        """Beyond the margin by more than chance."""
        return self.p <= self.level


def look_level(metrics: int, looks: int = LOOKS, error: float = ERROR) -> float:
    """The error one metric may spend at one look."""
    return error / (metrics * looks)


def compare(
    canary: Sequence[float],
    control: Sequence[float],
    *,
    margin: float,
    level: float,
    side: Side = "above",
    seed: int = 0,
) -> Difference | None:
    """Judge changes of devices; None where no arrangement of so few could be significant.

    `margin` is what is harmless by decree: a release fails only for being worse than that.
    """
    a, b = np.asarray(canary, float), np.asarray(control, float)
    a, b = np.sort(a[np.isfinite(a)]), np.sort(b[np.isfinite(b)])  # no order decides
    if not can_tell(len(a), len(b), level):
        return None
    value = float(a.mean() - b.mean())
    p = _p_beyond(a, b, margin, seed)
    if side == "both":
        p = min(1.0, 2 * min(p, _p_beyond(-a, -b, margin, seed)))
    half = _t_quantile(1 - level / 2, _freedom(a, b)) * _error(a, b)
    return Difference(value, value - half, value + half, p, len(a), len(b), level)


def can_tell(canary: int, control: int, level: float) -> bool:
    """Whether so few devices could give a p as small as `level` at all."""
    return canary >= 2 and control >= 2 and 1 / math.comb(canary + control, canary) <= level


def detectable(
    canary: int, control: int, deviation: float, level: float, power: float = 0.95
) -> float | None:
    """The least true difference that is found with `power`, if changes have this `deviation`."""
    if not can_tell(canary, control, level):
        return None
    freedom = canary + control - 2
    error = deviation * math.sqrt(1 / canary + 1 / control)
    return error * (_t_quantile(1 - level, freedom) + _t_quantile(power, freedom))


def _p_beyond(a: Array, b: Array, margin: float, seed: int) -> float:
    """One-sided p of `mean(a) - mean(b) > margin` by permutation of devices."""
    pooled = np.concatenate([a - margin, b])
    n, size = len(a), len(pooled)
    if min(n, size - n) >= MANY:
        t = float(_statistic(pooled[None, :n], pooled[None, n:])[0])
        return _t_beyond(t, _freedom(a, b))
    observed = _statistic(pooled[None, :n], pooled[None, n:])[0]
    count = math.comb(size, n)
    if count <= EXACT:
        chosen = np.array(list(combinations(range(size), n)))
        mask = np.zeros((count, size), bool)
        np.put_along_axis(mask, chosen, True, axis=1)
        at_least = _masked(pooled, mask, n) >= observed - 1e-12
        return float(at_least.mean())
    order = np.random.default_rng(seed).random((EXACT, size)).argsort(axis=1)
    mixed = pooled[order]
    at_least = _statistic(mixed[:, :n], mixed[:, n:]) >= observed - 1e-12
    return float((at_least.sum() + 1) / (EXACT + 1))


def _masked(pooled: Array, mask: NDArray[np.bool_], n: int) -> Array:
    rows = np.broadcast_to(pooled, mask.shape)
    first = rows[mask].reshape(len(mask), n)
    second = rows[~mask].reshape(len(mask), len(pooled) - n)
    return _statistic(first, second)


def _statistic(first: Array, second: Array) -> Array:
    """Welch's t of each row, which keeps its level when the two sides vary unlike (Janssen)."""
    value = first.mean(axis=1) - second.mean(axis=1)
    error = (
        first.var(axis=1, ddof=1) / first.shape[1] + second.var(axis=1, ddof=1) / second.shape[1]
    )
    found: Array = value / np.sqrt(np.maximum(error, 1e-24))
    return found


def _error(a: Array, b: Array) -> float:
    return math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))


def _freedom(a: Array, b: Array) -> float:
    x, y = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if x + y == 0:
        return float(len(a) + len(b) - 2)
    share = x / (x + y)  # of squares so small that their squares are 0
    return float(1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1)))


def _t_beyond(t: float, freedom: float) -> float:
    """Chance of Student's t above `t`, by Wallace's normalisation (Ann. Math. Stat. 30, 1959)."""
    v = max(freedom, 2.0)
    z = (8 * v + 1) / (8 * v + 3) * math.sqrt(v * math.log1p(t * t / v))
    return NormalDist().cdf(-math.copysign(z, t))


def _t_quantile(probability: float, freedom: float) -> float:
    """Student's t by Cornish and Fisher's expansion about the normal (Biometrika 1938)."""
    z = NormalDist().inv_cdf(probability)
    v = max(freedom, 2.0)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / v + g2 / v**2 + g3 / v**3
