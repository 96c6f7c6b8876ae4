"""Baseline and live bins of a field as bars side by side, for an SVG. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 240.0, 56.0
BARS_MOST = 40


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin: where it is, how high each side stands, and what it says."""

    x: float
    width: float
    baseline: float
    live: float
    title: str


def draw_histogram(edges: list[float], baseline: list[int], live: list[int]) -> list[Bar]:
    """Bars of equal width, heights as shares of the highest; none where bins do not match."""
    if len(baseline) != len(live) or not baseline or not sum(baseline):
        return []
    labels = _labels(edges)
    step = max(1, -(-len(baseline) // BARS_MOST))  # many bins are drawn several to a bar
    groups = [range(i, min(i + step, len(baseline))) for i in range(0, len(baseline), step)]
    n, m = sum(baseline), max(sum(live), 1)
    shares = [(sum(baseline[i] for i in own) / n, sum(live[i] for i in own) / m) for own in groups]
    top = max(max(pair) for pair in shares)
    width = WIDTH / len(groups)
    return [
        Bar(
            round(place * width, 2),
            round(width, 2),
            round(b / top * HEIGHT, 2),
            round(v / top * HEIGHT, 2),
            f"{labels[own[0]][0]} to {labels[own[-1]][1]}: training {b:.1%}, live {v:.1%}",
        )
        for place, (own, (b, v)) in enumerate(zip(groups, shares, strict=True))
    ]


def _labels(edges: list[float]) -> list[tuple[str, str]]:
    """Lower and upper limit of each bin; the outer ones are open."""
    words = ["lowest", *(f"{edge:.4g}" for edge in edges), "highest"]
    return list(pairwise(words))
