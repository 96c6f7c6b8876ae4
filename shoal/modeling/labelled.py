"""Answers of a device against the labels of the rows it read. Pure.

Rows and answers meet by time, so a labelled run has each time once. Rates are over answered rows
alone; what was not answered, or twice, is counted beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.modeling.evaluate import Quality, quality, z_scores

ALARM = "anomaly"
NORMAL_QUANTILE = 0.995
"""The z-score rule alarms above what so many normal rows stay below, as trained models do."""

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelledRun:
    """Rows in order of time, each with whether it is an anomaly."""

    name: str
    times_ms: NDArray[np.int64]
    anomalous: Flags


@dataclass(frozen=True, slots=True)
class Answered:
    """What came for the rows of a run."""

    alarms: Flags
    answers: NDArray[np.int64]
    """How many answers each row has; the newest counts."""
    strangers: int
    """Answers within the run's time that belong to none of its rows."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run, or several together."""

    name: str
    rows: int
    anomalies: int
    answered: int
    answered_again: int
    strangers: int
    quality: Quality
    z_score: Quality | None = None
    """The simple rule on the same rows."""


def match_answers(run: LabelledRun, answers: Iterable[dict[str, Any]], alarm: str) -> Answered:
    """Find the row of each answer (`sample_ms`, `label`), oldest answer first."""
    places = {int(ms): place for place, ms in enumerate(run.times_ms)}
    counts = np.zeros(len(places), np.int64)
    alarms = np.zeros(len(places), np.bool_)
    first, last = (int(run.times_ms[0]), int(run.times_ms[-1])) if places else (0, -1)
    strangers = 0
    for one in answers:
        place = places.get(one["sample_ms"])
        if place is not None:
            counts[place] += 1
            alarms[place] = one["label"] == alarm
        elif first <= one["sample_ms"] <= last:
            strangers += 1
    return Answered(alarms, counts, strangers)


def evaluate_run(
    run: LabelledRun, answered: Answered, simple_alarms: Flags | None = None
) -> Evaluation:
    """Compare alarms with labels, row by row."""
    seen = answered.answers > 0
    return Evaluation(
        name=run.name,
        rows=len(seen),
        anomalies=int(run.anomalous.sum()),
        answered=int(seen.sum()),
        answered_again=int((answered.answers > 1).sum()),
        strangers=answered.strangers,
        quality=quality(run.anomalous[seen], answered.alarms[seen]),
        z_score=None
        if simple_alarms is None
        else quality(run.anomalous[seen], simple_alarms[seen]),
    )


def join_runs(name: str, parts: list[tuple[LabelledRun, Answered, Flags | None]]) -> Evaluation:
    """All rows of several runs as one."""
    runs, answers, simple = zip(*parts, strict=True)
    run = LabelledRun(
        name,
        np.concatenate([one.times_ms for one in runs]),
        np.concatenate([one.anomalous for one in runs]),
    )
    answered = Answered(
        np.concatenate([one.alarms for one in answers]),
        np.concatenate([one.answers for one in answers]),
        sum(one.strangers for one in answers),
    )
    known = [one for one in simple if one is not None]
    return evaluate_run(run, answered, np.concatenate(known) if len(known) == len(parts) else None)


def z_score_alarms(normal: Floats, rows: Floats) -> Flags:
    """The simple rule: mean squared z-score above what 99.5 % of the normal rows stay below."""
    normal = normal[np.isfinite(normal).all(axis=1)]
    mean, std = normal.mean(axis=0), normal.std(axis=0)
    std[std == 0] = 1.0
    limit = np.quantile(z_scores(normal, mean, std), NORMAL_QUANTILE)
    alarms: Flags = z_scores(rows, mean, std) > limit
    return alarms
