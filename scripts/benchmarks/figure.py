"""What a benchmark gives: figures, each the median of several runs after a warm-up.

A ratio has both sides measured in turn in the same run, and keeps the bare side as `baseline`.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

_Value = TypeVar("_Value")

FULL_RUNS = 5
QUICK_RUNS = 2


class CannotMeasureError(Exception):
    """Why a figure cannot be measured here, as a sentence."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure; `quick` is for trying the benchmark itself, not for figures."""

    quick: bool = False

    @property
    def runs(self) -> int:
        """Measured runs of each figure."""
        return QUICK_RUNS if self.quick else FULL_RUNS

    def scaled(self, full: float, quick: float) -> float:
        """A size or duration, by how thorough the measurement is."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure."""

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    """Smallest and largest of the runs."""
    baseline: dict[str, Any] | None
    """The other side of a ratio, measured in the same runs: {"what", "value", "unit"}."""
    machine: str

    def document(self) -> dict[str, Any]:
        """The figure as JSON holds it."""
        return asdict(self)


def figure(
    name: str, unit: str, values: list[float], baseline: dict[str, Any] | None = None
) -> Figure:
    """The median of `values`, one of each run."""
    return Figure(
        name=name,
        value=_short(statistics.median(values)),
        unit=unit,
        spread=(_short(min(values)), _short(max(values))),
        baseline=baseline,
        machine=machine(),
    )


def ratio_figure(name: str, sides: list[tuple[float, float]], bare: str, unit: str) -> Figure:
    """The median of measured ÷ bare over runs; `bare` names the other side, in `unit`."""
    ratios = [measured / plain for measured, plain in sides]
    return Figure(
        name=name,
        value=_short(statistics.median(ratios)),
        unit="ratio",
        spread=(_short(min(ratios)), _short(max(ratios))),
        baseline={
            "what": bare,
            "value": _short(statistics.median(plain for _, plain in sides)),
            "unit": unit,
        },
        machine=machine(),
    )


def repeat(run: Callable[[], _Value], options: Options) -> list[_Value]:
    """One warm-up, then the measured runs."""
    run()
    values = []
    for _ in range(options.runs):
        gc.collect()
        values.append(run())
    return values


def machine() -> str:
    """The machine, so that figures of different ones are not compared."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _short(value: float) -> float:
    """Four significant digits: more are noise."""
    return float(f"{value:.4g}")
