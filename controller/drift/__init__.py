"""Drift: how far data is from training (`compare`), and whether it changed (`sequential`)."""

from __future__ import annotations

from controller.drift.compare import (
    Merged,
    compare_fields,
    device_drift,
    merge_fields,
    merge_newest,
    severity,
    worst_field,
)

__all__ = [
    "Merged",
    "compare_fields",
    "device_drift",
    "merge_fields",
    "merge_newest",
    "severity",
    "worst_field",
]
