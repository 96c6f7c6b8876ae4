"""Channels: the numbers of a window that are watched for change. Pure.

Each is made so that its noise is near normal and does not depend on its level: the mean in training
deviations, the cube root of the variance (Wilson and Hilferty, PNAS 17, 1931), shares as the
arcsine of their root.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from shoal.baseline import FieldBaseline
from shoal.protocol.messages import FieldStatistics


class Kind(StrEnum):
    """What of a field is watched."""

    MEAN = "mean"
    SPREAD = "spread"
    MISSING = "missing"
    OUTSIDE = "outside"


FLOORS = {Kind.MEAN: 0.005, Kind.SPREAD: 0.01, Kind.MISSING: 0.04, Kind.OUTSIDE: 0.04}
"""Least deviation of a channel: less is no change that anybody would want to hear of."""
STRETCH = {Kind.MEAN: 1.0, Kind.SPREAD: 1.15, Kind.MISSING: 1.15, Kind.OUTSIDE: 1.15}
"""Factor on the limits of the charts: these are less near normal than means."""
OF_FEATURES = (Kind.MEAN, Kind.SPREAD, Kind.MISSING, Kind.OUTSIDE)
OF_OUTPUTS = (Kind.MEAN, Kind.SPREAD, Kind.OUTSIDE)
OF_PROJECTIONS = (Kind.SPREAD,)


@dataclass(frozen=True, slots=True)
class Channel:
    """One column of a detector."""

    field: str
    kind: Kind
    scale: float
    """The field's deviation in training, in its unit."""


def channels_of(fields: Iterable[FieldBaseline], kinds: tuple[Kind, ...]) -> list[Channel]:
    """All channels of some fields of a baseline."""
    return [
        Channel(one.name, kind, one.std or max(abs(one.mean), 1.0) * 0.01)
        for one in fields
        for kind in kinds
    ]


def measure(channel: Channel, found: FieldStatistics) -> float:
    """The channel's number in a window; NaN where the window does not tell it."""
    seen = found.count + found.missing + found.nonfinite
    match channel.kind:
        case Kind.MEAN:
            return found.mean / channel.scale if found.count else math.nan
        case Kind.SPREAD:
            if found.count < 2:
                return math.nan
            return math.cbrt(max(found.m2, 0.0) / (found.count - 1) / channel.scale**2)
        case Kind.MISSING:
            return math.asin(math.sqrt(found.missing / seen)) if seen else math.nan
        case Kind.OUTSIDE:
            outside = found.out_of_range + found.nonfinite
            return math.asin(math.sqrt(min(outside / seen, 1.0))) if seen else math.nan


def in_words(channel: Channel, value: float, unit: str) -> str:
    """A channel's number as people say it: in the field's unit, or as a share."""
    unit = f" {unit}" if unit else ""
    match channel.kind:
        case Kind.MEAN:
            return f"{value * channel.scale:.4g}{unit}"
        case Kind.SPREAD:
            return f"{max(value, 0.0) ** 1.5 * channel.scale:.3g}{unit}"
        case _:
            return f"{math.sin(min(max(value, 0.0), math.pi / 2)) ** 2:.1%}"
