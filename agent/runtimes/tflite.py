"""ai-edge-litert and tflite-runtime, which share TensorFlow Lite's Interpreter interface.

Measured: signature runners and CompiledModel are slower or crash on broken files, more than one
thread slows small models, so the plain Interpreter with one thread it is. The model is loaded by
path, hence memory-mapped.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.runtimes.base import Engine, Floats, RuntimeLoadError
from agent.runtimes.operators import HIGHEST_PROBED, probe_file, probe_operators
from agent.runtimes.tensors import TensorCodec, check_batch


@dataclass(frozen=True, slots=True)
class TfliteAdapter:
    """How to reach one of the two; its distribution has its name."""

    name: str
    module: str
    """Its interpreter; the package around it tells the version."""
    kind: str = "tflite"

    def available(self) -> bool:
        """Whether it imports here."""
        try:
            importlib.import_module(self.module)
        except ImportError:
            return False
        return True

    def load(self, path: Path, num_threads: int) -> Engine:
        """Load a file; every refusal is a `RuntimeLoadError`."""
        module = importlib.import_module(self.module)
        try:
            interpreter = module.Interpreter(model_path=str(path), num_threads=num_threads)
            interpreter.allocate_tensors()
            # not importlib.metadata: it would cost every device 3 MB
            package = importlib.import_module(self.module.partition(".")[0])
            return TfliteEngine(interpreter, self.name, str(package.__version__))
        except (ValueError, RuntimeError) as error:
            raise RuntimeLoadError(f"{self.name}: {' '.join(str(error).split())}") from error

    def operators(self) -> dict[str, int]:
        """Operator → highest version, by asking the runtime; 0.1 s."""
        module = importlib.import_module(self.module)

        def takes(code: int, version: int) -> bool:
            try:
                module.Interpreter(model_content=probe_file(code, version))
            except (ValueError, RuntimeError):
                return False
            return True

        return probe_operators(takes, HIGHEST_PROBED)


ADAPTERS = (
    TfliteAdapter("ai-edge-litert", "ai_edge_litert.interpreter"),
    TfliteAdapter("tflite-runtime", "tflite_runtime.interpreter"),
)


class TfliteEngine:
    """One interpreter; not thread-safe, a worker has one thread."""

    def __init__(self, interpreter: Any, name: str, version: str) -> None:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or not outputs:
            raise RuntimeLoadError(
                f"{name}: expected one input and an output tensor, "
                f"got {len(inputs)} and {len(outputs)}",
                code="wrong-tensor",
            )
        self.name, self.version = name, version
        self._interpreter = interpreter
        self._indices = int(inputs[0]["index"]), int(outputs[0]["index"])
        self._input, self._output = _codec(name, inputs[0]), _codec(name, outputs[0])
        check_batch(name, self._input.shape)
        self.input_values, self.output_values = self._input.values, self._output.values
        self.kernels = "xnnpack" if _is_delegated(interpreter) else "reference"

    def run(self, inputs: Floats) -> Floats:
        """Quantise all, invoke row by row, dequantise all."""
        rows = self._input.encode(inputs).reshape(-1, *self._input.shape)
        raw = np.empty((len(rows), self.output_values), self._output.dtype)
        interpreter, (i, o) = self._interpreter, self._indices
        for number, row in enumerate(rows):
            interpreter.set_tensor(i, row)
            interpreter.invoke()
            raw[number] = interpreter.get_tensor(o).reshape(-1)
        return self._output.decode(raw)


def _codec(name: str, details: dict[str, Any]) -> TensorCodec:
    shape = tuple(int(n) for n in details["shape"])
    scale, zero = details["quantization"]
    return TensorCodec(f"{name}: tensor {details['name']}", shape, details["dtype"], scale, zero)


def _is_delegated(interpreter: Any) -> bool:
    try:
        return any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    except (AttributeError, RuntimeError, ValueError):
        return False
