"""Labelled recordings, where they lie beside the project: alarms against the labels.

SKAB (a water pump, 8 sensors at 1 Hz; faults in the middle of runs of about 20 minutes) and NAB
(temperature of a machine, five-minute values, four labelled failures in eleven weeks).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure, Options, figure
from controller.drift.channels import Channel, Kind
from controller.drift.sequential import Detector, Rule, Standing
from controller.drift.watch import limits

Array = NDArray[np.float64]

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SKAB_BUCKET_ROWS = 15
SKAB_FREE_ROWS = 9405
NAB_BUCKET_ROWS = 3
NAB_LEARN_DAYS = 7.0


class NoRecordingError(Exception):
    """The recordings are not part of the project."""


def skab_alarms(options: Options) -> Figure:
    """F1 of 15-second buckets in alarm against labelled faults, over all SKAB runs."""
    runs = sorted(
        [*(_folder("skab") / "valve1").glob("*.csv"), *(_folder("skab") / "other").glob("*.csv")]
    )
    learned = _skab_detector()
    hits = false = missed = 0
    for path in runs[: int(options.scaled(len(runs), 2))]:
        detector = Detector.load(learned.dump(), _skab_rule(), *_limits(8))
        rows, labels = _skab_rows(path)
        for number, values, label in _buckets(rows, labels, SKAB_BUCKET_ROWS, 10_000):
            alarm = _alarm(detector, number, values)
            hits += alarm and label
            false += alarm and not label
            missed += label and not alarm
    f1 = 2 * hits / max(2 * hits + false + missed, 1)
    return figure("skab_alarms", "F1", [f1])


def nab_alarms(options: Options) -> Figure:
    """Share of NAB's labelled failures of the machine with an alarm in or before them."""
    del options  # one recording: nothing to scale
    path = _folder("nab") / "machine_temperature_system_failure.csv"
    with path.open(newline="") as file:
        table = [(_time(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)]
    rule = Rule(bucket_seconds=300 * NAB_BUCKET_ROWS, learn_days=NAB_LEARN_DAYS)
    detector = Detector(rule, *_limits(1))
    detector.resize(1)
    values = np.array([[value] for _, value in table])
    labels = np.zeros(len(table), bool)
    alarmed = [
        table[number * NAB_BUCKET_ROWS][0]
        for number, channels, _ in _buckets(values, labels, NAB_BUCKET_ROWS, 0)
        if _alarm(detector, number, channels)
    ]
    spans = json.loads((_folder("nab") / "combined_windows.json").read_text())
    found = [
        any(_time(begin) <= moment <= _time(end) for moment in alarmed)
        for begin, end in spans["realKnownCause/machine_temperature_system_failure.csv"]
    ]
    return figure("nab_alarms", "ratio", [sum(found) / len(found)])


def _skab_rule() -> Rule:
    days = SKAB_FREE_ROWS / 86400 * 0.9  # at one row a second
    return Rule(bucket_seconds=SKAB_BUCKET_ROWS, learn_days=days, harmonics=0, min_rows=10)


def _skab_detector() -> Detector:
    detector = Detector(_skab_rule(), *_limits(8))
    detector.resize(1)
    rows, labels = _skab_rows(_folder("skab") / "anomaly-free.csv")
    for number, values, _ in _buckets(rows, labels, SKAB_BUCKET_ROWS, 0):
        _alarm(detector, number, values)
    return detector


def _alarm(detector: Detector, number: int, values: Array) -> bool:
    step = detector.step(number, values[None], np.array([1000.0]))
    return bool((step.standing == Standing.DRIFTING).any())


def _limits(fields: int) -> tuple[Array, Array]:
    kinds = [Kind.MEAN] * fields + [Kind.SPREAD] * fields
    return limits([Channel("", kind, 1.0) for kind in kinds])


def _buckets(
    rows: Array, labels: NDArray[np.bool_], size: int, start: int
) -> Iterator[tuple[int, Array, bool]]:
    for index in range(len(rows) // size):
        part = rows[index * size : (index + 1) * size]
        label = bool(labels[index * size : (index + 1) * size].mean() >= 0.5)
        yield start + index, np.concatenate([part.mean(0), np.cbrt(part.var(0, ddof=1))]), label


def _skab_rows(path: Path) -> tuple[Array, NDArray[np.bool_]]:
    with path.open(newline="") as file:
        table = list(csv.reader(file, delimiter=";"))
    names, body = table[0], table[1:]
    rows = np.array([[float(cell) for cell in row[1:9]] for row in body])
    at = names.index("anomaly") if "anomaly" in names else None
    labels = np.array([at is not None and float(row[at]) > 0 for row in body])
    return rows, labels


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _folder(name: str) -> Path:
    folder = DATA / name
    if not folder.is_dir():
        raise NoRecordingError(f"{folder}: the recordings are not here, see docs/benchmarks.md")
    return folder
