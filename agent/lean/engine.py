"""The TensorFlow Lite C library on lists of numbers: quantise, invoke, dequantise."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.installed import find_tflite_library
from agent.runtime_error import RuntimeLoadError
from agent.tflite_c import NAME, Interpreter, Library, Tensor

CODES = {"float32": "f", "int8": "b", "uint8": "B", "int16": "h", "int32": "i", "int64": "q"}
_LIMITS = {"b": (-128, 127), "B": (0, 255), "h": (-(1 << 15), (1 << 15) - 1)}
_WIDE = {"i": 1 << 31, "q": 1 << 63}


class LeanEngine:
    """One model; used from the thread that loaded it."""

    name = NAME

    def __init__(self, path: Path, num_threads: int) -> None:
        library = find_tflite_library()
        if library is None:
            raise RuntimeLoadError(f"{NAME}: no library found", code="no-runtime")
        loaded = Library(library)
        self._interpreter = Interpreter(loaded, path, num_threads)
        given, told = self._interpreter.input, self._interpreter.output
        if given.shape[:1] != (1,):
            raise RuntimeLoadError(
                f"{NAME}: expected batch size 1, got input shape {given.shape}", code="wrong-tensor"
            )
        self.version, self.kernels = loaded.version, self._interpreter.kernels
        self.input_values, self.output_values = math.prod(given.shape), math.prod(told.shape)
        self._encode, self._decode = encoder(given), decoder(told)

    def run(self, inputs: Sequence[Sequence[float]]) -> list[list[float]]:
        """Outputs of inputs in real units; one with NaN in it is not run, its answer is NaN."""
        return [self._run(one) for one in inputs]

    def _run(self, values: Sequence[float]) -> list[float]:
        if len(values) != self.input_values:
            raise RuntimeLoadError(
                f"{NAME}: expected {self.input_values} values, got {len(values)}",
                code="wrong-tensor",
            )
        if math.isnan(sum(values)) and any(map(math.isnan, values)):  # inf - inf is NaN as well
            return [math.nan] * self.output_values
        interpreter = self._interpreter
        interpreter.set_input(self._encode(values))
        interpreter.invoke()
        return self._decode(interpreter.get_output())


def encoder(tensor: Tensor) -> Callable[[Sequence[float]], bytes]:
    """From real numbers, none of them NaN, to what the tensor holds."""
    code = CODES[tensor.dtype]
    if code == "f":
        return lambda values: array("f", values).tobytes()
    low, high = _LIMITS.get(code) or (-_WIDE[code], _WIDE[code] - 1)
    if not tensor.scale:  # plain integers
        return lambda values: array(
            code, [low if v <= low else high if v >= high else int(v) for v in values]
        ).tobytes()
    zero, scale = tensor.zero_point, tensor.scale
    first, last = (low - zero) * scale, (high - zero) * scale

    def encode(values: Sequence[float]) -> bytes:
        found = [
            low if v <= first else high if v >= last else round(v / scale) + zero for v in values
        ]
        return array(code, found).tobytes()

    return encode


def decoder(tensor: Tensor) -> Callable[[bytes], list[float]]:
    """From what the tensor holds to real numbers."""
    code, scale, zero = CODES[tensor.dtype], tensor.scale, tensor.zero_point

    def decode(data: bytes) -> list[float]:
        values = array(code, data)
        if code == "f" or not scale:
            return [float(value) for value in values]
        return [(value - zero) * scale for value in values]

    return decode
