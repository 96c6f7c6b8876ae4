"""Group drift: how often a change is seen that is none, and how soon one that is.

Streams are simulated (`benchmarks.streams`): AR(1) 0.9 rows, devices 0.3 σ apart, a daily season
of 0.7 σ, windows of 300 rows every five minutes, 8 features. Detectors learn a week first. Real
recordings are measured beside them (`benchmarks.recordings`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure, Options, figure, repeat
from benchmarks.naive import ks_alarm_windows, psi_alarm_windows
from benchmarks.others import evidently_alarm_windows, whylogs_alarm_windows
from benchmarks.recordings import nab_alarms, skab_alarms
from benchmarks.streams import PER_DAY, WINDOW_ROWS, Law, MeanStreams, RowStreams, channels
from controller.drift.channels import Channel, Kind
from controller.drift.sequential import Detector, Rule, Standing
from controller.drift.watch import group_limits, limits, trimmed_mean

Array = NDArray[np.float64]
Change = Callable[[Array], None]

FEATURES = 8
DEVICES = 100
CHANGED = 16
"""Two devices in each feature, so that peers are not moved."""
SETTLE_WINDOWS = 3 * PER_DAY
PATIENCE = 250
DAYS_A_MONTH = 30.4


def false_alarms_device(options: Options) -> Figure:
    """Alarms a device and year of any feature's mean or spread, nothing changed; from rows."""
    days = int(options.scaled(20, 1))
    seeds = iter(range(1, 100))

    def run() -> float:
        detector, streams = _learned(next(seeds))
        was, alarms = np.zeros((DEVICES, 2 * FEATURES), bool), 0
        for values in _windows(streams, days):
            now = _drifting(detector, streams.number, values)
            alarms += int((now & ~was).any(axis=1).sum())
            was = now
        return alarms / (DEVICES * days / 365)

    return figure("false_alarms_device", "1/year", repeat(run, options))


def _delay(name: str, change: Change) -> Callable[[Options], Figure]:
    """Windows until half of the changed devices are seen, two of 100 in each feature."""

    def measure(options: Options) -> Figure:
        seeds = iter(range(1, 100))

        def run() -> float:
            detector, streams = _learned(next(seeds))
            first = np.full(CHANGED, PATIENCE)
            for window in range(1, PATIENCE):
                rows = streams.rows()
                for device in range(CHANGED):
                    change(rows[:, device, device % FEATURES])
                hit = _drifting(detector, streams.number, channels(rows))[:CHANGED].any(axis=1)
                first = np.where((first == PATIENCE) & hit, window, first)
                if (first < PATIENCE).all():
                    break
            return float(np.median(first))

        return figure(name, "windows", repeat(run, options))

    return measure


def _shift(size: float) -> Change:
    def change(rows: Array) -> None:
        rows += size

    return change


def _more_variance(rows: Array) -> None:
    middle = rows.mean(axis=0)
    rows[:] = middle + (rows - middle) * 1.5**0.5


def _stuck(rows: Array) -> None:
    rows[:] = rows[0]


@lru_cache(maxsize=8)
def _after_a_week(seed: int) -> tuple[Detector, RowStreams]:
    streams = RowStreams(np.random.default_rng(seed), DEVICES, FEATURES, Law())
    detector = Detector(Rule(), *limits(_of(Kind.MEAN) + _of(Kind.SPREAD)))
    detector.resize(DEVICES)
    for values in _windows(streams, int(Rule().learn_days)):
        _drifting(detector, streams.number, values)
    return detector, streams


def _of(kind: Kind) -> list[Channel]:
    return [Channel(str(index), kind, 1.0) for index in range(FEATURES)]


def _learned(seed: int) -> tuple[Detector, RowStreams]:
    return copy.deepcopy(_after_a_week(seed))


def _windows(streams: RowStreams, days: int) -> Iterator[Array]:
    for _ in range(days * PER_DAY):
        yield streams.channels()


def _drifting(detector: Detector, number: int, values: Array) -> NDArray[np.bool_]:
    weights = np.full(detector.rows, float(WINDOW_ROWS))
    found: NDArray[np.bool_] = detector.step(number, values, weights).standing == Standing.DRIFTING
    return found


# The fleet


class _Fleet:
    """1,000 devices and the chart of their trimmed mean, as `controller.drift.watch` has them."""

    devices = 1000

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._streams = MeanStreams(random, self.devices, FEATURES, Law())
        self._devices = Detector(Rule(), *limits(_of(Kind.MEAN)))
        self._devices.resize(self.devices)
        self._group = Detector(Rule(), *group_limits(FEATURES))
        self._group.resize(1)
        for _ in range(int(Rule().learn * 1.4)):  # the group learns from devices that have
            self.step()

    def step(self, shift: float = 0.0, changed: int = 0) -> NDArray[np.bool_]:
        """One window; which features drift."""
        values = self._streams.step()
        values[:changed, 0] += shift
        weights = np.full(self.devices, float(WINDOW_ROWS))
        step = self._devices.step(self._streams.number, values, weights)
        own = np.where(step.counted, step.residual, np.nan)
        found = self._group.step(self._streams.number, trimmed_mean(own)[None], weights[:1])
        drifting: NDArray[np.bool_] = found.standing[0] == Standing.DRIFTING
        return drifting


def false_alarms_fleet(options: Options) -> Figure:
    """Alarms a month of the chart of 1,000 devices, 8 features, nothing changed."""
    days = int(options.scaled(30, 1))
    seeds = iter(range(1, 100))

    def run() -> float:
        fleet = _fleet(next(seeds))
        was, alarms = np.zeros(FEATURES, bool), 0
        for _ in range(days * PER_DAY):
            now = fleet.step()
            alarms += int((now & ~was).sum())
            was = now
        return alarms / (days / DAYS_A_MONTH)

    return figure("false_alarms_fleet", "1/month", repeat(run, options))


def delay_fleet_quarter_sigma(options: Options) -> Figure:
    """Windows until the fleet's chart sees 0.25 σ in one feature of a fifth of 1,000 devices."""
    seeds = iter(range(1, 100))

    def run() -> float:
        fleet = _fleet(next(seeds))
        for window in range(1, PATIENCE):
            if fleet.step(0.25, fleet.devices // 5)[0]:
                return float(window)
        return float(PATIENCE)

    return figure("delay_fleet_quarter_sigma", "windows", repeat(run, options))


@lru_cache(maxsize=8)
def _settled_fleet(seed: int) -> _Fleet:
    return _Fleet(seed)


def _fleet(seed: int) -> _Fleet:
    return copy.deepcopy(_settled_fleet(seed))


MEASUREMENTS = {
    "false_alarms_device": false_alarms_device,
    "false_alarms_fleet": false_alarms_fleet,
    "delay_device_half_sigma": _delay("delay_device_half_sigma", _shift(0.5)),
    "delay_device_quarter_sigma": _delay("delay_device_quarter_sigma", _shift(0.25)),
    "delay_device_one_sigma": _delay("delay_device_one_sigma", _shift(1.0)),
    "delay_device_variance": _delay("delay_device_variance", _more_variance),
    "delay_device_stuck": _delay("delay_device_stuck", _stuck),
    "delay_fleet_quarter_sigma": delay_fleet_quarter_sigma,
    "psi_alarm_windows": psi_alarm_windows,
    "ks_alarm_windows": ks_alarm_windows,
    "evidently_alarm_windows": evidently_alarm_windows,
    "whylogs_alarm_windows": whylogs_alarm_windows,
    "skab_alarms": skab_alarms,
    "nab_alarms": nab_alarms,
}
