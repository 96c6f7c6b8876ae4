"""From what a `.tflite` file is to what a variant requires of a device."""

from __future__ import annotations

from msgspec.structs import replace

from shoal.compatibility import Facts, Gap, compare, runtime_of
from shoal.protocol.manifest import Requires
from shoal.tflite.reader import ModelFacts


def complete_requires(stated: Requires, model: ModelFacts) -> Requires:
    """`stated`, with what the author left open: operators, memory, lowest runtime version."""
    return replace(
        stated,
        operators=stated.operators or model.operators,
        memory_mb=stated.memory_mb or model.memory_mb,
        runtime_version=stated.runtime_version or model.min_runtime,
    )


def file_gaps(model: ModelFacts, facts: Facts) -> list[Gap]:
    """What a device lacks for the file itself, of what the device says at all."""
    needs = complete_requires(Requires(), model)
    if "memory_mb" not in facts:
        needs = replace(needs, memory_mb=0)
    if not any(runtime_of(facts, "tflite")):
        needs = replace(needs, runtime_version="")
    return compare(needs, facts)
