"""A `.tflite` file as text for people, read without a runtime. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from shoal.cli.package_page import Line
from shoal.tflite.operators import probed_runtimes
from shoal.tflite.reader import ModelFacts, Tensor

MAX_TENSORS = 20


def model_document(facts: ModelFacts) -> dict[str, Any]:
    """The facts for programs."""
    document: dict[str, Any] = msgspec.to_builtins(facts)
    return document | {"memory_bytes": facts.memory_bytes, "runs_on": runs_on(facts)}


def model_lines(facts: ModelFacts) -> list[Line]:
    """The facts for people."""
    operators = ", ".join(f"{name} {version}" for name, version in facts.operators.items())
    memory = f"{facts.memory_mb:,} MiB: {facts.peak_bytes:,} bytes of activations at most"
    return [
        ("about", facts.description or "nothing said"),
        *[("input", str(one)) for one in facts.inputs[:MAX_TENSORS]],
        *[("output", str(one)) for one in facts.outputs[:MAX_TENSORS]],
        ("operators", f"{operators} ({facts.operator_count} steps)"),
        ("tensors", f"{facts.tensor_count}, {facts.weight_bytes:,} bytes of constants"),
        ("memory", memory + (", float16 weights" if facts.has_float16_weights else "")),
        ("runtime", facts.min_runtime and f"TensorFlow Lite {facts.min_runtime} or later"),
        *[("runs on", text) for text in runs_on(facts)],
        ("usable", _usable(facts)),
    ]


def runs_on(facts: ModelFacts) -> list[str]:
    """Known runtimes, and the operators that each lacks."""
    found = []
    for name, versions in probed_runtimes().items():
        for version, known in versions.items():
            lacks = [
                f"{operator} {need}"
                for operator, need in facts.operators.items()
                if known.get(operator, 0) < need
            ]
            found.append(f"{name} {version}" + (f": lacks {', '.join(lacks)}" if lacks else ""))
    return found


def _usable(facts: ModelFacts) -> str:
    """Whether Shoal can run it: one input with batch size 1, float32 or integers."""
    wrong = [str(one) for one in (*facts.inputs, *facts.outputs[:1]) if not _is_numbers(one)]
    if len(facts.inputs) != 1 or not facts.outputs:
        return f"no: {len(facts.inputs)} inputs and {len(facts.outputs)} outputs, expected one"
    if wrong:
        return f"no: {wrong[0]}: expected float32 or integers"
    if facts.inputs[0].shape[:1] not in ((1,), (-1,)):
        return f"no: input {facts.inputs[0]}: expected batch size 1"
    return "yes"


def _is_numbers(tensor: Tensor) -> bool:
    return tensor.dtype in ("FLOAT32", "INT8", "UINT8", "INT16", "INT32", "INT64")
