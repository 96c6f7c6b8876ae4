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
from numpy.typing import NDArray

from agent.runtimes.base import Engine, Floats, RuntimeLoadError


@dataclass(frozen=True, slots=True)
class Adapter:
    """How to reach one of the runtimes."""

    name: str
    module: str
    """Its interpreter; the package around it tells the version."""
    distribution: str

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
            raise RuntimeLoadError(f"{self.name}: {error}") from error


ADAPTERS = (
    Adapter("ai-edge-litert", "ai_edge_litert.interpreter", "ai-edge-litert"),
    Adapter("tflite-runtime", "tflite_runtime.interpreter", "tflite-runtime"),
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
        self._input, self._output = _Tensor(inputs[0]), _Tensor(outputs[0])
        if self._input.shape[0] != 1:
            raise RuntimeLoadError(
                f"{name}: expected batch size 1, got input shape {self._input.shape}",
                code="wrong-tensor",
            )
        self.input_values = int(np.prod(self._input.shape))
        self.output_values = int(np.prod(self._output.shape))
        self.kernels = "xnnpack" if _is_delegated(interpreter) else "reference"

    def run(self, inputs: Floats) -> Floats:
        """Quantise all, invoke row by row, dequantise all."""
        if inputs.ndim != 2 or inputs.shape[1] != self.input_values:
            raise RuntimeLoadError(
                f"{self.name}: expected (n, {self.input_values}), got {inputs.shape}",
                code="wrong-tensor",
            )
        rows = self._input.quantise(inputs).reshape(-1, *self._input.shape)
        raw = np.empty((len(rows), self.output_values), self._output.dtype)
        interpreter, i, o = self._interpreter, self._input.index, self._output.index
        for number, row in enumerate(rows):
            interpreter.set_tensor(i, row)
            interpreter.invoke()
            raw[number] = interpreter.get_tensor(o).reshape(-1)
        return self._output.dequantise(raw)


class _Tensor:
    """An input or output tensor and its affine quantisation, if any."""

    def __init__(self, details: dict[str, Any]) -> None:
        self.index = int(details["index"])
        self.shape = tuple(int(n) for n in details["shape"])
        self.dtype = np.dtype(details["dtype"])
        self._scale, self._zero = details["quantization"]

    def quantise(self, values: Floats) -> NDArray[Any]:
        if self.dtype == np.float32:
            return np.ascontiguousarray(values)
        limits = np.iinfo(self.dtype)
        if self._scale:
            values = np.rint(values / np.float32(self._scale)) + self._zero
        # NaN cannot be an integer: it becomes the zero point, and the worker reports the row
        values = np.nan_to_num(values, nan=float(self._zero))
        return np.clip(values, limits.min, limits.max).astype(self.dtype)

    def dequantise(self, values: NDArray[Any]) -> Floats:
        if self.dtype == np.float32:
            return values
        if not self._scale:
            return values.astype(np.float32)
        scaled: Floats = (values.astype(np.float32) - self._zero) * np.float32(self._scale)
        return scaled


def _is_delegated(interpreter: Any) -> bool:
    try:
        return any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    except (AttributeError, RuntimeError, ValueError):
        return False
