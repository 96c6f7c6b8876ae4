"""Drawing devices into waves: by keyed hash inside strata, so that every wave is like the fleet.

Strata are hardware profiles. Within each, devices are ordered by SHA-256 of rollout and name,
which nobody can choose; strata are then interleaved in proportion. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from controller.rollouts.values import WaveSpec


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


def cut_waves(specs: Iterable[WaveSpec], order: list[str]) -> list[list[str]]:
    """Cut the order into waves; shares count the waves before, the last wave takes no more."""
    waves, taken = [], 0
    for spec in specs:
        if spec.share is not None:
            end = math.ceil(round(spec.share * len(order), 6))
        else:
            end = taken + (spec.devices or 0)
        end = min(max(end, taken), len(order))
        waves.append(order[taken:end])
        taken = end
    return waves
