"""From what a `.tflite` file is to what a variant requires of a device."""

from __future__ import annotations

from msgspec.structs import replace

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
