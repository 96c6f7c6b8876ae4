"""Drawing devices into waves: by keyed hash inside strata, so that every wave is like the fleet.

Strata are hardware profiles. Within each, devices are ordered by SHA-256 of rollout and name,
which nobody can choose; strata are then interleaved in proportion. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from controller.rollouts.values import WaveSpec

MAX_WAVES = 100
"""The last of waves that grow takes whoever is left."""


def draw_order(rollout: str, devices: Iterable[tuple[str, str]]) -> list[str]:
    """Order devices, given as (name, stratum)."""
    strata: dict[str, list[tuple[bytes, str]]] = {}
    for name, stratum in devices:
        key = hashlib.sha256(f"{rollout}|{name}".encode()).digest()
        strata.setdefault(stratum, []).append((key, name))
    ranked = []
    for members in strata.values():
        members.sort()
        ranked += [
            ((rank + 0.5) / len(members), key, name) for rank, (key, name) in enumerate(members)
        ]
    return [name for _, _, name in sorted(ranked)]


def grow(specs: Iterable[WaveSpec], total: int) -> list[WaveSpec]:
    """Write waves that grow as single ones, until they hold every device.

    >>> [one.devices for one in grow([WaveSpec(name="w", base=1, factor=4, cap=10)], 24)]
    [1, 4, 10, 9]
    """
    found: list[WaveSpec] = []
    for spec in specs:
        if spec.base is None:
            found.append(spec)
            continue
        size, left = float(spec.base), total
        while left > 0 and len(found) < MAX_WAVES:
            last = len(found) == MAX_WAVES - 1
            count = left if last else min(int(size), spec.cap or total, left)
            name = f"{spec.name} {len(found) + 1}"[:40]
            found.append(WaveSpec(name=name, devices=count, approval=spec.approval))
            left -= count
            size *= spec.factor
    return found


def hold_back(order: list[str], share: float) -> tuple[list[str], list[str]]:
    """Cut the control group off the end of the order; one device is always left for the waves."""
    count = min(int(round(share * len(order), 6)), len(order) - 1)
    return (order[:-count], order[-count:]) if count > 0 else (order, [])


def cut_waves(
    specs: Iterable[WaveSpec],
    order: list[str],
    chosen: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> list[list[str]]:
    """Cut the order into waves; shares count the waves before, the last wave takes no more.

    `chosen` has the devices that the selectors of waves mean.
    """
    waves, left = [], order
    for spec in specs:
        pool = left if spec.selector is None else [x for x in left if x in chosen[spec.selector]]
        count = len(pool) if spec.devices is None else spec.devices
        if spec.share is not None:
            drawn = len(order) - len(left)
            count = max(math.ceil(round(spec.share * len(order), 6)) - drawn, 0)
        waves.append(pool[:count])
        if spec.selector is None:
            left = left[count:]
            continue
        taken = set(pool[:count])
        left = [name for name in left if name not in taken]
    return waves
