"""How far a device's data is from the baseline of the release that it runs.

Windows of one release share their bins, so merging them gives exactly what counting all rows at
once would have given. Severities are words for people and pages; nothing is paged by them (a fixed
limit on PSI alarms in nearly every window of seasonal data).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, desc, select

from controller.artifacts import Artifacts
from controller.drift.alerts import drifting_fields
from controller.errors import NotFoundError
from controller.schema import releases, statistics
from shoal.baseline import Baseline, FieldBaseline
from shoal.drift import merge, psi
from shoal.performance import Estimate, Refusal, estimate, in_words
from shoal.protocol.manifest import Manifest
from shoal.protocol.messages import FieldStatistics

Document = dict[str, Any]

WINDOWS = 60
MIN_ROWS = 200
MODERATE = 0.1
STRONG = 0.25
"""The customary limits of PSI (Siddiqi, Credit Risk Scorecards, 2006); for colours only."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The last windows of one device and release, as one."""

    release_sequence: int
    baseline: str
    rows: int
    windows: int
    start_ms: int
    end_ms: int
    features: list[FieldStatistics]
    outputs: list[FieldStatistics]


def device_drift(
    connection: Connection, artifacts: Artifacts, device: str, model: str, windows: int = WINDOWS
) -> Document:
    """Compare the newest windows with the baseline, field by field."""
    merged = merge_newest(connection, device, model, windows)
    if merged is None:
        raise NotFoundError(f"device {device}: no statistics of {model} yet", code="no-statistics")
    baseline = artifacts.baseline(merged.baseline)
    manifest = _manifest(connection, model, merged.release_sequence)
    units = _units(manifest)
    drifting = drifting_fields(connection, device, model)

    def compared(family: str, expected: list[FieldBaseline], live: list[FieldStatistics]) -> Any:
        found = compare_fields(expected, live, units)
        return [one | {"drifting": (family, one["name"]) in drifting} for one in found]

    return {
        "device": device,
        "model": model,
        "version": manifest.version if manifest else "",
        "release_sequence": merged.release_sequence,
        "rows": merged.rows,
        "windows": merged.windows,
        "start_ms": merged.start_ms,
        "end_ms": merged.end_ms,
        "features": compared("inputs", baseline.features, merged.features),
        "projections": compared("projections", baseline.projections, merged.features),
        "outputs": compared("outputs", baseline.outputs, merged.outputs),
        "performance": performance_document(estimate_merged(manifest, baseline, merged)),
    }


def estimate_merged(
    manifest: Manifest | None, baseline: Baseline, merged: Merged
) -> Estimate | Refusal:
    """The accuracy to expect of what was merged."""
    if manifest is None:
        return Refusal("no-release", f"release {merged.release_sequence} is not published here")
    return estimate(manifest.contract, baseline, manifest.card.metrics, merged.outputs)


def performance_document(found: Estimate | Refusal) -> Document:
    """An estimate for programs and people; `accuracy` is null where it is refused."""
    if isinstance(found, Refusal):
        return {"accuracy": None, "code": found.code, "sentence": in_words(found)}
    return {
        "accuracy": round(found.accuracy, 4),
        "low": None if found.low is None else round(found.low, 4),
        "high": None if found.high is None else round(found.high, 4),
        "reference": round(found.reference, 4),
        "method": found.method,
        "rows": found.rows,
        "code": "estimated",
        "sentence": in_words(found),
    }


def merge_newest(
    connection: Connection, device: str, model: str, windows: int = WINDOWS
) -> Merged | None:
    """Merge the newest windows that belong to the newest release reported; None without any."""
    c = statistics.c
    query = (
        select(statistics)
        .where(c.device == device, c.model == model, c.baseline != "")
        .order_by(desc(c.end_ms), desc(c.id))
        .limit(windows)
    )
    rows = connection.execute(query).all()
    if not rows:
        return None
    first = rows[0]
    same = [row for row in rows if row.baseline == first.baseline]
    return Merged(
        first.release_sequence,
        first.baseline,
        sum(row.rows for row in same),
        len(same),
        min(row.start_ms for row in same),
        max(row.end_ms for row in same),
        merge_fields([row.features for row in same]),
        merge_fields([row.outputs for row in same]),
    )


def merge_fields(windows: list[list[Document]]) -> list[FieldStatistics]:
    """Merge the field lists of several windows, field by field."""
    parts: dict[str, list[FieldStatistics]] = {}
    for fields in windows:
        for field in fields:
            one = msgspec.convert(field, FieldStatistics)
            parts.setdefault(one.name, []).append(one)
    return [whole for own in parts.values() if (whole := merge(own)) is not None]


def compare_fields(
    expected: list[FieldBaseline], found: list[FieldStatistics], units: dict[str, str]
) -> list[Document]:
    """One document a field of the baseline, the most drifted first."""
    by_name = {one.name: one for one in found}
    rows = [
        _compare(one, by_name[one.name], units.get(one.name, ""))
        for one in expected
        if one.name in by_name
    ]
    return sorted(rows, key=lambda row: -(row["psi"] or 0.0))


def severity(value: float | None, rows: int) -> str:
    """none, moderate, strong, or too-little-data."""
    if value is None or rows < MIN_ROWS:
        return "too-little-data"
    return "none" if value < MODERATE else "moderate" if value < STRONG else "strong"


def _compare(base: FieldBaseline, live: FieldStatistics, unit: str) -> Document:
    value = psi(base.counts, live.bins)
    seen = live.count + live.missing + live.nonfinite
    return {
        "name": base.name,
        "unit": unit,
        "psi": None if value is None else round(value, 4),
        "severity": severity(value, live.count),
        "count": live.count,
        "mean": _finite(live.mean),
        "std": _finite(_std(live)),
        "min": live.min,
        "max": live.max,
        "missing_ratio": live.missing / seen if seen else 0.0,
        "out_of_range_ratio": live.out_of_range / live.count if live.count else 0.0,
        "baseline_mean": base.mean,
        "baseline_std": base.std,
        "baseline_missing_ratio": base.missing / max(base.count + base.missing, 1),
        "edges": base.edges,
        "baseline_bins": base.counts,
        "bins": live.bins,
    }


def _std(live: FieldStatistics) -> float:
    return math.sqrt(max(live.m2, 0.0) / (live.count - 1)) if live.count > 1 else 0.0


def _finite(value: float) -> float:
    """What a device counted may overflow when it is merged; JSON has no word for that."""
    if math.isnan(value):
        return 0.0
    return min(max(value, -sys.float_info.max), sys.float_info.max)


def _manifest(connection: Connection, model: str, sequence: int) -> Manifest | None:
    query = select(releases.c.manifest).where(
        releases.c.model == model, releases.c.sequence == sequence
    )
    row = connection.execute(query).first()
    return None if row is None else msgspec.convert(row.manifest, Manifest)


def _units(manifest: Manifest | None) -> dict[str, str]:
    if manifest is None:
        return {}
    contract = manifest.contract
    units = {one.name: one.unit for one in contract.features}
    return units | {one.name: one.unit for one in contract.outputs}


def worst_field(document: Document) -> tuple[float | None, str | None]:
    """The largest PSI of any feature with enough data, and the feature's name."""
    found = [row for row in document["features"] if row["severity"] != "too-little-data"]
    return (found[0]["psi"], found[0]["name"]) if found else (None, None)
