"""Comparing distributions: exact merging of statistics and a noise-corrected PSI.

Pure Python, so agent (merging while offline) and controller both use it. PSI against training
serves severity and pages, not paging: on autocorrelated, seasonal streams any fixed PSI limit
alarms in nearly every window (measured; see the decision record on baseline bins).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from shoal.protocol.messages import FieldStatistics

FLOOR = 1e-4
"""Smallest share a bin is given, so that an empty bin never makes a statistic infinite or NaN."""


def merge(parts: Iterable[FieldStatistics]) -> FieldStatistics | None:
    """Return the statistics of all parts together, as if counted at once; None of no parts.

    Moments by Chan, Golub and LeVeque's pairwise update. Bins add where both sides have the same
    number of them; parts counted in other bins lose them.
    """
    whole: FieldStatistics | None = None
    for part in parts:
        whole = part if whole is None else _merge(whole, part)
    return whole


def _merge(a: FieldStatistics, b: FieldStatistics) -> FieldStatistics:
    count = a.count + b.count
    delta = b.mean - a.mean
    share = b.count / count if count else 0.0
    lows = [x for x in (a.min, b.min) if x is not None]
    highs = [x for x in (a.max, b.max) if x is not None]
    same = len(a.bins) == len(b.bins)
    return FieldStatistics(
        name=a.name,
        count=count,
        missing=a.missing + b.missing,
        nonfinite=a.nonfinite + b.nonfinite,
        out_of_range=a.out_of_range + b.out_of_range,
        mean=a.mean + delta * share,
        m2=a.m2 + b.m2 + delta * delta * a.count * share,
        min=min(lows) if lows else None,
        max=max(highs) if highs else None,
        bins=[x + y for x, y in zip(a.bins, b.bins, strict=True)] if same else [],
    )


def psi(expected: Sequence[int], observed: Sequence[int]) -> float | None:
    """Population stability index of two histograms over the same bins, less its noise.

    Under no change PSI is close to χ²/n with mean (bins - 1)(1/n + 1/m); that much is taken off
    and the rest cut at 0. None when either side is empty or the bins differ.
    """
    n, m = sum(expected), sum(observed)
    if not n or not m or len(expected) != len(observed):
        return None
    total, used = 0.0, 0
    for e, o in zip(expected, observed, strict=True):
        if not e and not o:
            continue
        used += 1
        p, q = max(e / n, FLOOR), max(o / m, FLOOR)
        total += (q - p) * math.log(q / p)
    noise = (used - 1) * (1 / n + 1 / m)
    return max(total - noise, 0.0)
