"""How well scores find labelled anomalies: counts, rates, and a simple rule to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Quality:
    """Rates 0 to 1. `false_alarm_rate` is over normal rows, `missed_alarm_rate` over anomalies."""

    f1: float
    false_alarm_rate: float
    missed_alarm_rate: float
    auc: float | None = None


def quality(
    labels: NDArray[np.bool_],
    alarms: NDArray[np.bool_],
    scores: NDArray[np.float32] | None = None,
) -> Quality:
    """Compare `alarms` (n,) with true `labels` (n,); AUC where `scores` are given."""
    hits = int((labels & alarms).sum())
    missed = int((labels & ~alarms).sum())
    false = int((~labels & alarms).sum())
    normal, anomalous = int((~labels).sum()), int(labels.sum())
    return Quality(
        f1=2 * hits / (2 * hits + missed + false) if hits else 0.0,
        false_alarm_rate=false / normal if normal else 0.0,
        missed_alarm_rate=missed / anomalous if anomalous else 0.0,
        auc=None if scores is None else auc(labels, scores),
    )


def auc(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> float | None:
    """Area under the ROC curve by ranks (Mann and Whitney); None if one class is absent."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / positives / negatives)


def z_scores(
    rows: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean squared z-score of each row: the simple rule beside every anomaly model."""
    squares: NDArray[np.float32] = np.mean(((rows - mean) / std) ** 2, axis=1, dtype=np.float32)
    return squares
