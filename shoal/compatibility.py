"""Does a variant fit a device: one generic comparison, used by controller and agent.

Both sides of it use the keys of a hardware profile. The answer is empty, or names each thing
missing as {field, need, have, fix}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoal.protocol.manifest import Manifest, Requires, Variant

Facts = Mapping[str, str | int | float | bool]
"""What a device has. Lists are comma-separated text, since facts travel flat."""


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing a device lacks."""

    field: str
    need: str
    have: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: needs {self.need}, has {self.have or 'nothing'} ({self.fix})"


def compare(requires: Requires, facts: Facts) -> list[Gap]:
    """Everything in `requires` that `facts` do not offer."""
    gaps = []
    arch = str(facts.get("arch", ""))
    if requires.arch and arch not in requires.arch:
        needed = " or ".join(requires.arch)
        gaps.append(Gap("arch", needed, arch, "build a variant for this architecture"))
    for field, need in (("memory_mb", requires.memory_mb), ("disk_mb", requires.disk_mb)):
        have = facts.get(field, 0)
        if need and _number(have) < need:
            gaps.append(Gap(field, str(need), str(have), "use a smaller variant"))
    for field in ("cpu_features", "delegates"):
        have_list = _items(facts.get(field, ""))
        missing = [one for one in getattr(requires, field) if one not in have_list]
        if missing:
            gaps.append(
                Gap(field, ", ".join(missing), ", ".join(have_list), "use a plainer variant")
            )
    have_version = str(facts.get("runtime_version", ""))
    if requires.runtime_version and _version(have_version) < _version(requires.runtime_version):
        gaps.append(
            Gap("runtime_version", requires.runtime_version, have_version, "upgrade the agent")
        )
    return gaps


def choose_variant(manifest: Manifest, facts: Facts) -> tuple[Variant | None, list[Gap]]:
    """The fitting variant of highest priority; else None with the gaps of the best one."""
    ranked = sorted(manifest.variants, key=lambda v: -v.priority)
    found = [(variant, _gaps(variant, facts)) for variant in ranked]
    for variant, gaps in found:
        if not gaps:
            return variant, []
    return None, min((gaps for _, gaps in found), key=len)


def _gaps(variant: Variant, facts: Facts) -> list[Gap]:
    gaps = compare(variant.requires, facts)
    runtimes = _items(facts.get("runtimes", "tflite"))
    if variant.runtime not in runtimes:
        have = ", ".join(runtimes)
        gaps.append(Gap("runtime", variant.runtime, have, f"install {variant.runtime}"))
    return gaps


def _number(value: Any) -> float:
    """A fact as a number; what is none is nothing."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _items(value: Any) -> list[str]:
    return [item for item in str(value).split(",") if item]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]{1,9}", text)[:4])
