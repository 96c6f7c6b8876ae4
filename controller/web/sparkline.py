"""A course as a small line with its limit, for an SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 120.0, 26.0
_HEADROOM = 1.25
"""The limit stays below the top, however low the line."""

Point = tuple[int, float | None, float | None]
"""When, the chart as a share of its limit, the distance against training."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Lines to draw, and what they are of."""

    lines: tuple[str, ...]
    """`points` of polylines: one for each stretch without a gap."""
    limit_y: float
    end: tuple[float, float] | None
    above: bool
    """Whether the newest point is above the limit."""
    title: str


def draw_sparkline(points: Sequence[Point], psi_limit: float) -> Sparkline | None:
    """The chart where it is judged, else the distance against training; None without either."""
    charts = [(at, level) for at, level, _ in points]
    if any(level is not None for _, level in charts):
        return _draw(charts, 1.0, "share of the alarm's limit")
    distances = [(at, psi) for at, _, psi in points]
    if any(psi is not None for _, psi in distances):
        return _draw(distances, psi_limit, "distance from training, PSI")
    return None


def _draw(course: list[tuple[int, float | None]], limit: float, what: str) -> Sparkline:
    values = [value for _, value in course if value is not None]
    top = max(limit * _HEADROOM, *values)
    first, last = course[0][0], course[-1][0]
    across = WIDTH / (last - first) if last > first else 0.0

    def place(at: int, value: float) -> tuple[float, float]:
        return round((at - first) * across, 1), round(HEIGHT - value / top * (HEIGHT - 2) - 1, 1)

    lines: list[list[tuple[float, float]]] = [[]]
    for at, value in course:
        if value is None:
            lines.append([])
        else:
            lines[-1].append(place(at, value))
    drawn = [own for own in lines if own]
    newest = values[-1]
    return Sparkline(
        lines=tuple(" ".join(f"{x},{y}" for x, y in own) for own in drawn if len(own) > 1),
        limit_y=place(first, limit)[1],
        end=drawn[-1][-1],
        above=newest > limit,
        title=f"{what}: {newest:.2f}, limit {limit:g}",
    )
