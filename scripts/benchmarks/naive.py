"""What customary rules do on the same streams: share of windows in which any feature alarms.

Nothing has changed in them. Training rows come from other devices, as a package's do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure, Options, figure, repeat
from benchmarks.streams import PER_DAY, Law, RowStreams
from shoal.drift import psi
from shoal.statistics import make_baseline

Array = NDArray[np.float64]

FEATURES = 8
DEVICES = 4
PSI_LIMIT = 0.2
KS_LIMIT = 0.05


def psi_alarm_windows(options: Options) -> Figure:
    """PSI against training above 0.2."""
    return figure("psi_alarm_windows", "ratio", alarm_shares(_psi_alarms, options))


def ks_alarm_windows(options: Options) -> Figure:
    """Kolmogorov and Smirnov's two-sample p below 0.05 against training."""
    return figure("ks_alarm_windows", "ratio", alarm_shares(_ks_alarms, options))


def alarm_shares(
    alarms: Callable[[Array, Array], bool],
    options: Options,
    *,
    windows: int = 0,
    devices: int = DEVICES,
    every: int = 1,
) -> list[float]:
    """Share of windows that `alarms(training, rows)` is true of, of each run; one in `every`."""
    windows = windows or int(options.scaled(PER_DAY, 24))
    seeds = iter(range(1, 100))

    def run() -> float:
        seed = next(seeds)
        law = Law()
        others = RowStreams(np.random.default_rng(1000 + seed), DEVICES, FEATURES, law)
        kept = [others.rows() for _ in range(PER_DAY)][:: PER_DAY // 24]
        training = np.concatenate([rows.reshape(-1, FEATURES) for rows in kept])
        streams = RowStreams(np.random.default_rng(seed), devices, FEATURES, law)
        found = [
            alarms(training, rows[:, device])
            for number, rows in enumerate(streams.rows() for _ in range(windows))
            if number % every == 0
            for device in range(devices)
        ]
        return sum(found) / len(found)

    return repeat(run, options)


def _psi_alarms(training: Array, rows: Array) -> bool:
    names = [str(index) for index in range(FEATURES)]
    baseline = make_baseline(training.astype("f4"), np.empty((0, 0), "f4"), names, [])
    for index, field in enumerate(baseline.features):
        bins = np.searchsorted(field.edges, rows[:, index], side="right")
        counts = np.bincount(bins, minlength=len(field.edges) + 1).tolist()
        value = psi(field.counts, counts)
        if value is not None and value > PSI_LIMIT:
            return True
    return False


def _ks_alarms(training: Array, rows: Array) -> bool:
    return any(
        _ks_p(np.sort(training[:, index]), np.sort(rows[:, index])) < KS_LIMIT
        for index in range(FEATURES)
    )


def _ks_p(first: Array, second: Array) -> float:
    """Asymptotic p of the two-sample statistic; both sides sorted."""
    every = np.concatenate([first, second])
    a = np.searchsorted(first, every, side="right") / len(first)
    b = np.searchsorted(second, every, side="right") / len(second)
    scale = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    x = float(np.abs(a - b).max()) * scale
    if x < 0.2:
        return 1.0
    return 2 * math.fsum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 40))
