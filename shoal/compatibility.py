"""Does a variant fit a device: one generic comparison, used by author, controller and agent.

Both sides of it use the keys of a hardware profile. The answer is empty, or names each thing
missing as {field, need, have, fix}. Facts come from devices over the wire: whatever stands in them,
the comparison answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from shoal.protocol.manifest import Manifest, Requires, Sensor, Variant
from shoal.tflite.operators import known_operators
from shoal.versions import version_key

Facts = Mapping[str, str | int | float | bool]
"""What a device has. Lists are comma-separated text, since facts travel flat."""

RUNTIME_KINDS = {
    "ai-edge-litert": "tflite",
    "tflite-runtime": "tflite",
    "tflite-c": "tflite",
    "onnxruntime": "onnx",
    "numpy": "numpy",
}
"""Runtimes by the kind of file they read."""

LITERT_IS_AT_LEAST = "2.18"
"""TensorFlow Lite version that every ai-edge-litert counts as; its own numbers began anew."""

MAX_REMEMBERED = 10_000
NUMBERS = {
    "memory_mb": "use a smaller variant, or a device with more memory",
    "memory_free_mb": "free memory on the device, or use a smaller variant",
    "disk_mb": "free room on the device's disk, or use a smaller variant",
    "cpu_cores": "use a smaller variant, or a device with more cores",
}
LISTS = {
    "cpu_features": "use a plainer variant",
    "delegates": "use a variant without delegate",
}
VERSIONS = {
    "libc": "upgrade the device's operating system",
    "python": "install the agent with a newer Python",
}

READ = ("arch", "runtimes", "runtime", "runtime_version", "sensors", *LISTS, *VERSIONS)
"""Facts that are compared whatever a manifest needs; `runtime_<kind>` and numbers come to them."""


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing a device lacks."""

    field: str
    need: str
    have: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: needs {self.need}, has {self.have or 'nothing'} ({self.fix})"


@dataclass(frozen=True, slots=True)
class Fit:
    """A variant and what a device lacks for it."""

    variant: Variant
    gaps: list[Gap]


def explain_variants(manifest: Manifest, facts: Facts) -> list[Fit]:
    """Every variant with its gaps, the one of highest priority first."""
    ranked = sorted(manifest.variants, key=lambda variant: -variant.priority)
    return [Fit(one, _runtime(one.runtime, facts) + compare(one.requires, facts, one.runtime))
            for one in ranked]  # fmt: skip


def choose_variant(manifest: Manifest, facts: Facts) -> tuple[Variant | None, list[Gap]]:
    """The fitting variant of highest priority; else None with the gaps of the best one."""
    fits = explain_variants(manifest, facts)
    chosen = next((one.variant for one in fits if not one.gaps), None)
    if chosen is not None:
        return chosen, []
    return None, min((one.gaps for one in fits), key=len)


class Chooser:
    """`choose_variant` for many devices: facts that differ in nothing that counts are asked once.

    Only what fits is remembered, since the gaps of others name their own numbers.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._needs = [
            (key, need)
            for key in NUMBERS
            for need in sorted({getattr(one.requires, key, 0) for one in manifest.variants})
            if need
        ]
        kinds = sorted({one.runtime for one in manifest.variants})
        self._read = (*READ, *(f"runtime_{kind}" for kind in kinds))
        self._chosen: dict[tuple[object, ...], Variant] = {}

    def choose(self, facts: Facts) -> tuple[Variant | None, list[Gap]]:
        """The fitting variant of highest priority; else None with the gaps of the best one."""
        if "memory_free_mb" in facts:
            return choose_variant(self._manifest, facts)
        key = (
            *map(facts.get, self._read),
            *[_number(facts.get(name)) >= need for name, need in self._needs],
        )
        chosen = self._chosen.get(key)
        if chosen is not None:
            return chosen, []
        found, gaps = choose_variant(self._manifest, facts)
        if found is not None and len(self._chosen) < MAX_REMEMBERED:
            self._chosen[key] = found
        return found, gaps


def compare(requires: Requires, facts: Facts, kind: str = "tflite") -> list[Gap]:
    """Everything in `requires` that `facts` do not offer; `kind` is the variant's runtime."""
    return [
        *_arch(requires, facts),
        *_numbers(requires, facts),
        *_lists(requires, facts),
        *_versions(requires, facts),
        *_runtime_version(requires, facts, kind),
        *_operators(requires, facts, kind),
        *_sensors(requires, facts),
    ]


def runtime_of(facts: Facts, kind: str) -> tuple[str, str]:
    """Name and version of what reads files of a kind on a device; empty where nothing does."""
    text = str(facts.get(f"runtime_{kind}", ""))
    if not text and kind == "tflite":  # an agent that knows one runtime
        return str(facts.get("runtime", "")), str(facts.get("runtime_version", ""))
    name, _, version = text.strip().partition(" ")
    return name, version


def sensor_text(sensor: Sensor) -> str:
    """A sensor as it stands in facts."""
    return f"{sensor.name}|{sensor.unit}|{sensor.rate_hz:g}"


def _runtime(kind: str, facts: Facts) -> list[Gap]:
    have = _items(facts.get("runtimes", "tflite"))
    if kind in have:
        return []
    return [Gap("runtime", kind, ", ".join(have), f"install a runtime for {kind} on the device")]


def _arch(requires: Requires, facts: Facts) -> list[Gap]:
    arch = str(facts.get("arch", ""))
    if not requires.arch or arch in requires.arch:
        return []
    needed = " or ".join(requires.arch)
    return [Gap("arch", needed, arch, "build a variant for this architecture")]


def _numbers(requires: Requires, facts: Facts) -> list[Gap]:
    needs = {key: getattr(requires, key, 0) for key in NUMBERS}
    if "memory_free_mb" in facts:  # only a device itself knows it, at the moment
        needs["memory_free_mb"] = requires.memory_mb
    return [
        Gap(key, f"{need:g}", f"{_number(facts.get(key)):g}", NUMBERS[key])
        for key, need in needs.items()
        if need and _number(facts.get(key)) < need
    ]


def _lists(requires: Requires, facts: Facts) -> list[Gap]:
    gaps = []
    for key, fix in LISTS.items():
        have = _items(facts.get(key, ""))
        missing = [one for one in getattr(requires, key) if one not in have]
        if missing:
            gaps.append(Gap(key, ", ".join(missing), ", ".join(have), fix))
    return gaps


def _versions(requires: Requires, facts: Facts) -> list[Gap]:
    gaps = []
    for key, fix in VERSIONS.items():
        need, have = getattr(requires, key), str(facts.get(key, ""))
        same_kind = not need[:1].isalpha() or need.split(" ")[0] == have.split(" ")[0]
        if need and not (same_kind and version_key(have) >= version_key(need)):
            gaps.append(Gap(key, need, have, fix))
    return gaps


def _runtime_version(requires: Requires, facts: Facts, kind: str) -> list[Gap]:
    """`2.14` counts as TensorFlow Lite does; `ai-edge-litert 2.1` is about that runtime only."""
    need = requires.runtime_version
    if not need:
        return []
    name, version = runtime_of(facts, kind)
    named, _, number = need.rpartition(" ")
    if named and named != name:
        return []
    counts = version_key(version)
    if not named and name == "ai-edge-litert":
        counts = max(counts, version_key(LITERT_IS_AT_LEAST))
    if counts >= version_key(number):
        return []
    fix = "upgrade the runtime on the device, or convert for an older one"
    return [Gap("runtime_version", need, f"{name} {version}".strip(), fix)]


def _operators(requires: Requires, facts: Facts, kind: str) -> list[Gap]:
    name, version = runtime_of(facts, kind)
    known = known_operators(name, version)
    if not requires.operators or known is None:
        return []  # not known to be missing: loading it will tell
    missing = {
        operator: need
        for operator, need in requires.operators.items()
        if known.get(operator, 0) < need and ":" not in operator
    }
    custom = [one for one in requires.operators if ":" in one]
    if not missing and not custom:
        return []
    needed = [f"{one} {need}" for one, need in missing.items()] + custom
    have = [f"{one} {known[one]}" for one in missing if one in known]
    fix = f"convert with operators that {name} {version} has, or upgrade the runtime"
    return [Gap("operators", ", ".join(needed), ", ".join(have), fix)]


def _sensors(requires: Requires, facts: Facts) -> list[Gap]:
    have: dict[str, tuple[str, float]] = {}
    for item in _items(facts.get("sensors", "")):
        name, unit, rate = (*item.split("|"), "", "")[:3]
        have[name] = unit, _number(rate)
    gaps = []
    for need in requires.sensors:
        has_unit, has_rate = have.get(need.name, ("", -1.0))
        if has_rate >= need.rate_hz and has_unit == need.unit:
            continue
        offer = ", ".join(have)
        if need.name in have:
            offer = f"{need.name} {has_unit} at {has_rate:g} Hz"
        wanted = f"{need.name} {need.unit} at {need.rate_hz:g} Hz"
        fix = "wire the sensor and name it in device.sensors, with this unit and rate"
        gaps.append(Gap("sensors", wanted, offer, fix))
    return gaps


def _items(value: object) -> list[str]:
    return [item for item in str(value).split(",") if item]


def _number(value: object) -> float:
    """A fact as a number; what is none is nothing."""
    try:
        number = float(value)  # type: ignore[arg-type] # what is no number raises
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0
