"""Gates: may a wave pass? Pure functions from what devices reported to verdicts.

The statistical unit is the device: rows of one device are not independent, so each device gives
one number, and medians or the worst of them are judged.

Predictions are judged by a difference of differences: how far a device's answers moved from the
release before to this one, less how far the control's moved over the same time. The control are
devices of later waves, which still run the release before; weather and season move both alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from controller.rollouts.values import GateResult, Verdict
from shoal.drift import psi
from shoal.latency import LATENCY_FLOOR_US, latency_quantile
from shoal.protocol.manifest import Gates

MIN_SHARE = 0.5
"""Share of a wave's devices that must have reported enough rows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one device reported of one release."""

    device: str
    answered: int = 0
    failed: int = 0
    out_of_range: int = 0
    answers: int = 0
    """Answers whose range was counted: one a window of rows, not one a row."""
    latency_counts: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Histogram of each output, in the bins of `baseline`."""
    baseline: str = ""
    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Mean and deviation of each output."""

    @property
    def rows(self) -> int:
        """Rows that reached the model."""
        return self.answered + self.failed


@dataclass(frozen=True, slots=True)
class Compared:
    """All evidence about a wave."""

    wave: Sequence[Evidence]
    control: Sequence[Evidence]
    before: Mapping[str, Evidence]
    """Devices of the wave and of the control before the wave was released, by name."""
    has_control: bool
    """Whether any device is left for a later wave."""


def evaluate(limits: Gates, max_out_of_range: float, found: Compared) -> tuple[GateResult, ...]:
    """Judge a wave."""
    enough = [one for one in found.wave if one.rows >= max(limits.min_rows, 1)]
    data = _data(limits, found, enough)
    if data.verdict != "pass":
        return (data,)
    return (
        data,
        _failed_ratio(limits, enough),
        _out_of_range(max_out_of_range, found, enough),
        _latency(limits, found, enough),
        _shift(limits, found, enough),
    )


def change(before: Evidence, now: Evidence) -> float | None:
    """How far a device's answers moved, as noise-corrected PSI; None where nothing compares.

    Labels compare across releases. Outputs do where both releases count them in the same bins.
    """
    if any(before.labels.values()) and any(now.labels.values()):
        return _label_change(before.labels, now.labels)
    if not before.baseline or before.baseline != now.baseline:
        return None
    shared = before.outputs.keys() & now.outputs.keys()
    values = [psi(before.outputs[name], now.outputs[name]) for name in shared]
    return max((value for value in values if value is not None), default=None)


def _label_change(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """PSI of label shares with half a count added to each, so that a rare label weighs little."""
    names = sorted(before.keys() | now.keys())
    n, m = sum(before.values()), sum(now.values())
    total = 0.0
    for name in names:
        p = (before.get(name, 0) + 0.5) / (n + 0.5 * len(names))
        q = (now.get(name, 0) + 0.5) / (m + 0.5 * len(names))
        total += (q - p) * math.log(q / p)
    return max(total - (len(names) - 1) * (1 / n + 1 / m), 0.0)


def _data(limits: Gates, found: Compared, enough: Sequence[Evidence]) -> GateResult:
    share = len(enough) / len(found.wave) if found.wave else 0.0
    sentence = (
        f"{len(enough)} of {len(found.wave)} devices have answered {limits.min_rows} rows or more"
    )
    verdict: Verdict = "pass" if found.wave and share >= MIN_SHARE else "inconclusive"
    return GateResult("enough data", verdict, sentence, share, MIN_SHARE, len(found.wave))


def _failed_ratio(limits: Gates, enough: Sequence[Evidence]) -> GateResult:
    worst = max(enough, key=lambda one: one.failed / one.rows)
    value, limit = worst.failed / worst.rows, limits.max_failed_ratio
    sentence = f"failed rows: {value:.1%} at worst ({worst.device}), at most {limit:.1%} allowed"
    return GateResult("failed rows", _verdict(value <= limit), sentence, value, limit, len(enough))


def _out_of_range(limit: float, found: Compared, enough: Sequence[Evidence]) -> GateResult:
    """A broken sensor puts answers out of range under any release: judge the rise on each device.

    The median of devices decides; a single one's rise is for its own probation to judge.
    """
    rises = [_outside(one) - _outside(found.before.get(one.device)) for one in enough]
    value = median(rises)
    sentence = (
        f"answers out of range: {value:+.1%} since the release before (median of "
        f"{len(rises)} devices), at most {limit:+.1%} allowed"
    )
    return GateResult(
        "answers out of range", _verdict(value <= limit), sentence, value, limit, len(rises)
    )


def _outside(one: Evidence | None) -> float:
    """Share of answers out of range; 0 where there were none."""
    return one.out_of_range / one.answers if one is not None and one.answers else 0.0


def _latency(limits: Gates, found: Compared, enough: Sequence[Evidence]) -> GateResult:
    name, limit = "latency", limits.max_latency_ratio
    ratios = []
    for one in enough:
        before = found.before.get(one.device)
        old = latency_quantile(before.latency_counts, 0.95) if before else 0.0
        if old:
            ratios.append(latency_quantile(one.latency_counts, 0.95) / old)
    if not ratios:
        return GateResult(name, "not-judged", "latency: no release before to compare with")
    value = median(ratios)
    highest = max(latency_quantile(one.latency_counts, 0.95) for one in enough)
    small = highest < LATENCY_FLOOR_US
    sentence = (
        f"p95 latency {value:.2g} times that of the release before (median of devices), "
        f"at most {limit:g} allowed"
    ) + (f"; all below {LATENCY_FLOOR_US / 1000:g} ms" if small else "")
    verdict = _verdict(small or value <= limit)
    return GateResult(name, verdict, sentence, value, limit, len(ratios))


def _shift(limits: Gates, found: Compared, enough: Sequence[Evidence]) -> GateResult:
    name, limit = "prediction shift", limits.max_prediction_shift
    own = _changes(enough, found.before)
    if not own:
        return GateResult(
            name, "not-judged", "prediction shift: no answers before that these compare with"
        )
    if not found.has_control:
        return GateResult(
            name, "not-judged", "prediction shift: no device is left to be the control"
        )
    ready = [one for one in found.control if one.rows >= max(limits.min_rows, 1)]
    control = _changes(ready, found.before)
    if not control:
        return GateResult(name, "inconclusive", "prediction shift: the control reports too little")
    value = median(own) - median(control)
    sentence = (
        f"answers moved by {median(own):.2f}, the control's by {median(control):.2f} "
        f"(PSI, medians of {len(own)} and {len(control)} devices): {value:+.2f}, "
        f"at most {limit:+.2f} allowed"
    )
    return GateResult(name, _verdict(value <= limit), sentence, value, limit, len(own))


def _changes(devices: Sequence[Evidence], before: Mapping[str, Evidence]) -> list[float]:
    found = [change(before[one.device], one) for one in devices if one.device in before]
    return [value for value in found if value is not None]


def _verdict(holds: bool) -> Verdict:
    return "pass" if holds else "fail"
