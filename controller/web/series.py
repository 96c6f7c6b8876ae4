"""Windows as the columns of a chart, with gaps where the device was silent. Pure."""

from __future__ import annotations

from typing import Any

Window = dict[str, Any]

GAP_FACTOR = 3
"""A pause of so many windows is drawn as a gap, not as a line."""
_NAMES = ("p50_ms", "p95_ms", "rows_per_second", "failed")


def columns(windows: list[Window]) -> dict[str, Any]:
    """Times in seconds, values with None in gaps, and the moments at which a release changed.

    `last_ms` is what to ask from next time.
    """
    found: dict[str, list[float | None]] = {name: [] for name in ("t", *_NAMES)}
    changes: list[dict[str, Any]] = []
    before: Window | None = None
    for one in windows:
        if before is not None and _is_gap(before, one):
            _add(found, (before["end_ms"] + one["start_ms"]) / 2000, dict.fromkeys(_NAMES))
        if before is None or before["version"] != one["version"]:
            changes.append({"t": one["start_ms"] / 1000, "version": one["version"]})
        _add(found, one["end_ms"] / 1000, _values(one))
        before = one
    return found | {"changes": changes, "last_ms": windows[-1]["end_ms"] if windows else None}


def _is_gap(before: Window, after: Window) -> bool:
    length = max(before["end_ms"] - before["start_ms"], after["end_ms"] - after["start_ms"])
    pause = after["start_ms"] - before["end_ms"]
    return bool(pause > GAP_FACTOR * length)


def _values(one: Window) -> dict[str, float | None]:
    seconds = (one["end_ms"] - one["start_ms"]) / 1000
    answered = one["latency_p95_us"] > 0
    return {
        "p50_ms": round(one["latency_p50_us"] / 1000, 4) if answered else None,
        "p95_ms": round(one["latency_p95_us"] / 1000, 4) if answered else None,
        "rows_per_second": round(one["in_count"] / seconds, 3) if seconds > 0 else None,
        "failed": float(sum(one["failed"].values())),
    }


def _add(
    found: dict[str, list[float | None]], seconds: float, values: dict[str, float | None]
) -> None:
    found["t"].append(seconds)
    for name, value in values.items():
        found[name].append(value)
