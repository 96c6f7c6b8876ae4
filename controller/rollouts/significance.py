"""Tests of a wave against its control: is it worse by more than what is harmless, and than chance?

A soak has six looks, at fixed moments; each uses what was known by then, so asking again gives the
same answer and looking often spends nothing. Limits (`gates`) catch what is plainly bad with any
number of devices; this catches what is only a little worse, where there are devices enough to tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.rollouts.gates import Compared, Evidence
from controller.rollouts.inference import (
    LOOKS,
    Difference,
    Side,
    can_tell,
    compare,
    detectable,
    look_level,
)
from controller.rollouts.values import GateResult, Verdict
from shoal.latency import LATENCY_FLOOR_US, latency_quantile
from shoal.protocol.manifest import Gates

MAX_LABELS = 3
Change = Callable[[Evidence, Evidence], float | None]


@dataclass(frozen=True, slots=True)
class Look:
    """One look of a soak: its number from 1, and until when what came in counts."""

    number: int
    at_ms: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """One number a device gives, and how much worse it may get."""

    name: str
    what: str
    change: Change
    margin: float
    side: Side = "above"
    percent: bool = True


def due_look(now_ms: int, soaking_ms: int, soak_seconds: float, seed: int) -> Look | None:
    """The look that is due; None before the first. There are never more than `LOOKS`."""
    step = max(soak_seconds * 1000 / LOOKS, 1.0)
    number = min(int((now_ms - soaking_ms) // step), LOOKS)
    return Look(number, int(soaking_ms + number * step), seed) if number >= 1 else None


def look_for_harm(
    found: Compared, limits: Gates, look: Look, measured: Sequence[str]
) -> tuple[GateResult, ...]:
    """One verdict a metric; `measured` are the outputs whose values compare across releases."""
    if not found.has_control:
        return ()
    metrics = choose_metrics(found, limits, measured)
    level = look_level(len(metrics))
    return tuple(_judge(metric, found, limits, look, level) for metric in metrics)


def choose_metrics(found: Compared, limits: Gates, measured: Sequence[str]) -> list[Metric]:
    """Failures, latency, and the answers that both releases give."""
    allowed = limits.harmless_prediction_difference
    return [
        Metric("more failed rows", "failed rows", _failed, limits.harmless_failed_difference),
        Metric("slower", "p95 latency", _latency, math.log1p(limits.harmless_latency_difference)),
        *(
            Metric(f"share of {label}", f"the share of {label}", _share_of(label), allowed, "both")
            for label in _labels(found)
        ),
        *(
            Metric(f"{name} moved", name, _moved(name), allowed, "both", percent=False)
            for name in measured
        ),
    ]


def changes(
    metric: Metric, devices: Sequence[Evidence], before: Mapping[str, Evidence], min_rows: int
) -> list[float]:
    """The change of each device that has told enough."""
    values = []
    for now in devices:
        past = before.get(now.device)
        if past is None or min(now.rows, past.rows) < min_rows:
            continue
        value = metric.change(past, now)
        if value is not None and math.isfinite(value):
            values.append(value)
    return values


def _judge(metric: Metric, found: Compared, limits: Gates, look: Look, level: float) -> GateResult:
    canary = changes(metric, found.wave, found.before, limits.min_rows)
    control = changes(metric, found.control, found.before, limits.min_rows)
    name = f"{metric.name} than the control" if metric.side == "above" else metric.name
    result = compare(
        canary, control, margin=metric.margin, level=level, side=metric.side, seed=look.seed
    )
    if result is None:
        sentence = (
            f"{metric.what}: {len(canary)} against {len(control)} devices are too few to tell"
        )
        return GateResult(name, "not-judged", sentence, samples=len(canary))
    verdict: Verdict = "fail" if result.harmful else "pass"
    return GateResult(
        name, verdict, _sentence(metric, result, look), result.value, metric.margin, result.canary
    )


def _sentence(metric: Metric, found: Difference, look: Look) -> str:
    def say(value: float) -> str:
        return f"{value:+.2%}" if metric.percent else f"{value:+.2f} deviations"

    between = f"between {say(found.low)} and {say(found.high)} at {1 - found.level:.2%}"
    return (
        f"{metric.what} changed by {say(found.value)} more than in the control ({between}; "
        f"{found.canary} against {found.control} devices, look {look.number} of {LOOKS}); "
        f"{say(metric.margin)} is harmless"
    )


def detectable_changes(
    metrics: Sequence[Metric],
    before: Sequence[Mapping[str, Evidence]],
    canary: int,
    control: int,
) -> dict[str, float | None]:
    """The least harm a canary of this size would find, by how much devices change by themselves.

    `before` are two stretches of the past of the same devices; None where it can not tell at all.
    """
    level = look_level(len(metrics))
    found: dict[str, float | None] = {}
    for metric in metrics:
        values = [
            value
            for device, now in before[1].items()
            if device in before[0] and (value := metric.change(before[0][device], now)) is not None
        ]
        if len(values) < 3 or not can_tell(canary, control, level):
            found[metric.what] = None
            continue
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((one - mean) ** 2 for one in values) / (len(values) - 1))
        least = detectable(canary, control, deviation, level)
        found[metric.what] = None if least is None else metric.margin + least
    return found


def _failed(before: Evidence, now: Evidence) -> float | None:
    return now.failed / now.rows - before.failed / before.rows


def _latency(before: Evidence, now: Evidence) -> float | None:
    old = latency_quantile(before.latency_counts, 0.95)
    new = latency_quantile(now.latency_counts, 0.95)
    if max(old, new) < LATENCY_FLOOR_US:
        return 0.0  # at that scale the scheduler decides
    return math.log(new / old) if old and new else None


def _share_of(label: str) -> Change:
    def change(before: Evidence, now: Evidence) -> float | None:
        return _arcsine(now.labels, label) - _arcsine(before.labels, label)

    return change


def _arcsine(labels: Mapping[str, int], label: str) -> float:
    every = sum(labels.values())
    return math.asin(math.sqrt(labels.get(label, 0) / every)) if every else math.nan


def _moved(name: str) -> Change:
    def change(before: Evidence, now: Evidence) -> float | None:
        if name not in before.moments or name not in now.moments:
            return None
        deviation = before.moments[name][1]
        return (now.moments[name][0] - before.moments[name][0]) / deviation if deviation else None

    return change


def _labels(found: Compared) -> list[str]:
    """The labels that both sides give, the most frequent first; one of two says it all."""
    counts: dict[str, int] = {}
    for one in found.before.values():
        for label, count in one.labels.items():
            counts[label] = counts.get(label, 0) + count
    ranked = sorted(counts, key=lambda label: (counts[label], label))
    return ranked[:1] if len(ranked) == 2 else ranked[-MAX_LABELS:] if len(ranked) > 2 else []
