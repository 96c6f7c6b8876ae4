"""How often a model is right in the field, estimated from its scores alone. Pure.

Confidence-based performance estimation: where the share of right answers at each score is known,
the scores that devices count say which share to expect. `calibrate` learns it from labelled rows
when a package is made; without them the card's accuracy is moved by as much as the mean confidence
moved. It takes for granted that a score still means what it meant: it sees that the data became
harder (covariate shift), not that the right answer to the same data changed (concept drift).

>>> known = Calibration(output="confidence", counts=[0, 100, 100, 0], correct=[0, 60, 90, 0])
>>> round(estimate_accuracy(known, [0, 300, 100, 0]).accuracy, 3)
0.675
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from shoal.baseline import Baseline, Calibration, FieldBaseline
from shoal.protocol.manifest import ClassScores, Contract, Threshold
from shoal.protocol.messages import FieldStatistics

LEVEL = 0.95
MIN_ROWS = 200
MIN_DEVICES = 4
"""Fewer say nothing of how devices differ."""
MIN_LABELLED = 5
"""Fewer labelled rows of a score tell nothing of it."""
MAX_UNKNOWN = 0.05
"""Share of answers at scores without labelled rows above which nothing is estimated."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Accuracy to expect; `low` and `high` are None where too few devices tell an interval."""

    accuracy: float
    low: float | None
    high: float | None
    reference: float
    """On the labelled rows, or as the card says."""
    method: str
    """calibrated or card."""
    rows: int
    variance: float
    """Of what is common to all devices: the calibration's."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing can be estimated."""

    code: str
    sentence: str


def score_output(contract: Contract) -> str | None:
    """The output that the label is chosen by; None where the release gives no such score."""
    outputs = {one.name for one in contract.outputs}
    for step in reversed(contract.postprocess):
        if isinstance(step, ClassScores | Threshold) and step.field in outputs:
            return step.field
    return None


def calibrate(field: FieldBaseline, scores: Sequence[float], right: Sequence[bool]) -> Calibration:
    """Count labelled answers, and those that were right, in the bins of an output's baseline."""
    counts, correct = [0] * len(field.counts), [0] * len(field.counts)
    for score, is_right in zip(scores, right, strict=True):
        if math.isfinite(score):
            place = bisect_right(field.edges, score)
            counts[place] += 1
            correct[place] += bool(is_right)
    return Calibration(output=field.name, counts=counts, correct=correct)


def estimate_accuracy(known: Calibration, bins: Sequence[int]) -> Estimate:
    """Weigh the share of right answers at each score by the scores counted.

    Scores without labelled rows could be all right or all wrong: the interval has both.
    """
    rows, labelled = sum(bins), sum(known.counts)
    accuracy = variance = unknown = 0.0
    for live, count, correct in zip(bins, known.counts, known.correct, strict=True):
        weight = live / rows
        if count < MIN_LABELLED:
            unknown += weight
            continue
        accuracy += weight * correct / count
        share = (correct + 1) / (count + 2)  # Laplace: a bin without mistakes is not certain
        variance += weight**2 * share * (1 - share) / count
    accuracy += unknown / 2
    sampling = accuracy * (1 - accuracy) / rows
    reach = _z() * math.sqrt(variance + sampling) + unknown / 2
    return Estimate(
        accuracy, *_cut(accuracy, reach), sum(known.correct) / labelled, "calibrated", rows,
        variance + (unknown / 2 / _z()) ** 2,
    )  # fmt: skip


def estimate_by_card(reference: float, field: FieldBaseline, live: FieldStatistics) -> Estimate:
    """Move the card's accuracy by as much as the mean confidence moved."""
    accuracy = min(max(reference + live.mean - field.mean, 0.0), 1.0)
    variance = reference * (1 - reference) / max(field.count, 1)
    reach = _z() * math.sqrt(variance + accuracy * (1 - accuracy) / live.count)
    return Estimate(accuracy, *_cut(accuracy, reach), reference, "card", live.count, variance)


def estimate(
    contract: Contract,
    baseline: Baseline,
    metrics: dict[str, float],
    outputs: list[FieldStatistics],
) -> Estimate | Refusal:
    """Estimate the accuracy of a device's answers, or say why that cannot be told."""
    name = score_output(contract)
    field = next((one for one in baseline.outputs if one.name == name), None)
    live = next((one for one in outputs if one.name == name), None)
    if name is None or field is None or live is None:
        return Refusal("no-scores", "the release gives no score that its label is chosen by")
    if live.count < MIN_ROWS:
        return Refusal("too-little-data", f"{live.count} answers, expected {MIN_ROWS} or more")
    known, reference = baseline.calibration, metrics.get("accuracy")
    fits = known is not None and known.output == name and len(live.bins) == len(known.counts)
    if known is not None and fits and sum(live.bins) >= MIN_ROWS:
        pairs = zip(live.bins, known.counts, strict=True)
        unknown = sum(n for n, labelled in pairs if labelled < MIN_LABELLED) / max(
            sum(live.bins), 1
        )
        if unknown > MAX_UNKNOWN:
            return Refusal(
                "unknown-scores",
                f"{unknown:.0%} of the answers have scores that no labelled row had",
            )
        return estimate_accuracy(known, live.bins)
    chosen = any(isinstance(one, ClassScores) for one in contract.postprocess)
    if reference is None or not 0 <= reference <= 1:
        return Refusal(
            "no-reference",
            "the release was packaged without labelled rows, and its card gives no accuracy",
        )
    if not chosen or not all(0 <= value <= 1 for value in (field.min, field.max, live.mean)):
        return Refusal("no-confidence", f"{name} is no confidence between 0 and 1")
    return estimate_by_card(reference, field, live)


def estimate_fleet(devices: Sequence[Estimate]) -> Estimate:
    """The mean over devices; the device is the unit, so their spread makes the interval.

    What the calibration does not know is common to all devices: more of them do not help there.
    """
    accuracy = fmean(one.accuracy for one in devices)
    common = max(one.variance for one in devices)
    low = high = None
    if len(devices) >= MIN_DEVICES:
        between = stdev(one.accuracy for one in devices) ** 2 / len(devices)
        low, high = _cut(accuracy, _t(len(devices) - 1) * math.sqrt(between + common))
    reference = fmean(one.reference for one in devices)
    rows = sum(one.rows for one in devices)
    return Estimate(accuracy, low, high, reference, devices[0].method, rows, common)


def in_words(found: Estimate | Refusal) -> str:
    """A sentence for people, with what it takes for granted."""
    if isinstance(found, Refusal):
        return f"Cannot tell: {found.sentence}."
    meant = (
        "a score means what it meant on the labelled rows"
        if found.method == "calibrated"
        else "confidence moves as accuracy does"
    )
    interval = "" if found.low is None else f" ({found.low:.1%} to {found.high:.1%})"
    return (
        f"About {found.accuracy:.1%} right{interval}, {found.reference:.1%} when it was made; "
        f"if {meant}, and the right answer to the same data has not changed."
    )


def _cut(middle: float, reach: float) -> tuple[float, float]:
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def _z() -> float:
    return NormalDist().inv_cdf((1 + LEVEL) / 2)


def _t(degrees: int) -> float:
    """Student's quantile by its expansion in 1/degrees: 0.8 % low at 3 degrees, less above."""
    z = _z()
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / float(degrees) ** power for power, term in enumerate(terms))
