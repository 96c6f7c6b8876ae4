"""What whylogs and Evidently do on the same streams, where they are installed beside us.

Neither is a dependency: `pip install 'whylogs[viz]' evidently 'pandas<3'` into the environment that
runs the benchmark, or these figures are not measured. Both at their defaults; a window alarms when
any of its columns does. Eight windows of a day of one device, since a comparison takes
hundreds of milliseconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import CannotMeasureError, Figure, Options, figure
from benchmarks.naive import FEATURES, alarm_shares
from benchmarks.streams import PER_DAY

Array = NDArray[np.float64]

EVERY = 36
NAMES = [f"sensor{index}" for index in range(FEATURES)]


def evidently_alarm_windows(options: Options) -> Figure:
    """Evidently's data drift preset; it chooses the test by the number of rows."""
    frame = _installed("pandas", "pandas").DataFrame
    report = _installed("evidently", "evidently").Report
    preset = _installed("evidently.presets", "evidently").DataDriftPreset

    def alarms(training: Array, rows: Array) -> bool:
        found = report([preset()]).run(frame(rows, columns=NAMES), frame(training, columns=NAMES))
        return bool(found.dict()["metrics"][0]["value"]["count"] > 0)

    return _measure("evidently_alarm_windows", alarms, options)


def whylogs_alarm_windows(options: Options) -> Figure:
    """Drift scores of whylogs' profiles: Kolmogorov and Smirnov on sketches, p below 0.05."""
    frame = _installed("pandas", "pandas").DataFrame
    log = _installed("whylogs", "whylogs").log
    scores = _installed(
        "whylogs.viz.drift.column_drift_algorithms", "whylogs[viz]"
    ).calculate_drift_scores
    profiles: dict[int, Any] = {}

    def alarms(training: Array, rows: Array) -> bool:
        if id(training) not in profiles:
            profiles.clear()
            profiles[id(training)] = log(frame(training, columns=NAMES)).view()
        found = scores(
            target_view=log(frame(rows, columns=NAMES)).view(),
            reference_view=profiles[id(training)],
            with_thresholds=True,
        )
        return any(one and one["drift_category"] == "DRIFT" for one in found.values())

    return _measure("whylogs_alarm_windows", alarms, options)


def _measure(name: str, alarms: Callable[[Array, Array], bool], options: Options) -> Figure:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of pandas and numpy
        shares = alarm_shares(
            alarms, options, windows=int(options.scaled(PER_DAY, 24)), devices=1, every=EVERY
        )
    return figure(name, "ratio", shares)


def _installed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise CannotMeasureError(f"{package} is not installed here ({error})") from error
