"""Gates: may a wave pass? Pure functions from what devices reported to verdicts.

The statistical unit is the device: rows of one device are not independent, so each device gives
one number, and medians or the worst of them are judged. A wave's devices are compared with the
control, devices of later waves that still run the release before, at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from controller.rollouts.values import GateResult, Verdict
from shoal.drift import psi
from shoal.latency import latency_quantile
from shoal.protocol.manifest import Gates

LATENCY_FLOOR_US = 2000.0
"""A p95 below 2 ms passes whatever it was before: at that scale the scheduler decides."""
MIN_SHARE = 0.5
"""Share of a wave's devices that must have reported enough rows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one device reported of one release."""

    device: str
    answered: int = 0
    failed: int = 0
    out_of_range: int = 0
    latency_counts: tuple[int, ...] = ()
    shift: float | None = None
    """Largest noise-corrected PSI of an output against the release's own baseline."""

    @property
    def rows(self) -> int:
        """Rows that reached the model."""
        return self.answered + self.failed


@dataclass(frozen=True, slots=True)
class Compared:
    """All evidence about a wave."""

    wave: Sequence[Evidence]
    before: dict[str, Evidence]
    """The same devices with the release before, by name."""
    control: Sequence[Evidence]
    has_control: bool
    """Whether any device is left for a later wave."""


def evaluate(limits: Gates, max_out_of_range: float, found: Compared) -> tuple[GateResult, ...]:
    """Judge a wave."""
    enough = [one for one in found.wave if one.rows >= limits.min_rows]
    data = _data(limits, found, enough)
    if data.verdict != "pass":
        return (data,)
    return (
        data,
        _failed_ratio(limits, enough),
        _out_of_range(max_out_of_range, enough),
        _latency(limits, found, enough),
        _shift(limits, found, enough),
    )


def output_shift(expected: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> float | None:
    """The largest PSI of any output; histograms field by field, in the same order."""
    values = [psi(e, f) for e, f in zip(expected, found, strict=False)]
    return max((value for value in values if value is not None), default=None)


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


def _out_of_range(limit: float, enough: Sequence[Evidence]) -> GateResult:
    worst = max(enough, key=lambda one: one.out_of_range / max(one.answered, 1))
    value = worst.out_of_range / max(worst.answered, 1)
    sentence = (
        f"answers out of range: {value:.1%} at worst ({worst.device}), at most {limit:.1%} allowed"
    )
    verdict = _verdict(value <= limit)
    return GateResult("answers out of range", verdict, sentence, value, limit, len(enough))


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
    own = [one.shift for one in enough if one.shift is not None]
    if not own:
        return GateResult(name, "not-judged", "prediction shift: no distributions reported")
    if not found.has_control:
        return GateResult(
            name, "not-judged", "prediction shift: no device is left to be the control"
        )
    control = [
        one.shift for one in found.control if one.shift is not None and one.rows >= limits.min_rows
    ]
    if not control:
        return GateResult(name, "inconclusive", "prediction shift: the control reports too little")
    value = median(own) - median(control)
    sentence = (
        f"predictions are {median(own):.2f} from their baseline, the control's "
        f"{median(control):.2f}: {value:+.2f}, at most {limit:+.2f} allowed"
    )
    verdict = _verdict(value <= limit)
    return GateResult(name, verdict, sentence, value, limit, len(own))


def _verdict(holds: bool) -> Verdict:
    return "pass" if holds else "fail"
