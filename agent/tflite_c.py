"""The TensorFlow Lite C library through ctypes, without numpy: for the smallest devices.

    with Interpreter(Library(find_tflite_library()), path) as interpreter:
        interpreter.set_input(bytes(interpreter.input.size_bytes))
        interpreter.invoke()
        print(interpreter.get_output())

Unlike in the Python packages XNNPACK has to be asked for. The library says why it refuses a file
on standard error only, so the sentence here cannot.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_float, c_int32, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from agent.runtime_error import RuntimeLoadError

NAME = "tflite-c"
TYPES = {1: "float32", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8"}
"""`TfLiteType` by number, of those an input or output may have."""


class _Quantisation(ctypes.Structure):
    _fields_ = (("scale", c_float), ("zero_point", c_int32))


class _XnnpackOptions(ctypes.Structure):
    """The first field is all we set. Versions of the library differ in the rest; room for any."""

    _fields_ = (("num_threads", c_int32), ("rest", ctypes.c_uint8 * 508))


_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "Version": (c_char_p, ()),
    "ModelCreate": (c_void_p, (c_char_p, c_size_t)),
    "ModelCreateFromFile": (c_void_p, (c_char_p,)),
    "ModelDelete": (None, (c_void_p,)),
    "InterpreterOptionsCreate": (c_void_p, ()),
    "InterpreterOptionsSetNumThreads": (None, (c_void_p, c_int32)),
    "InterpreterOptionsAddDelegate": (None, (c_void_p, c_void_p)),
    "InterpreterOptionsDelete": (None, (c_void_p,)),
    "InterpreterCreate": (c_void_p, (c_void_p, c_void_p)),
    "InterpreterDelete": (None, (c_void_p,)),
    "InterpreterAllocateTensors": (c_int32, (c_void_p,)),
    "InterpreterInvoke": (c_int32, (c_void_p,)),
    "InterpreterGetInputTensorCount": (c_int32, (c_void_p,)),
    "InterpreterGetOutputTensorCount": (c_int32, (c_void_p,)),
    "InterpreterGetInputTensor": (c_void_p, (c_void_p, c_int32)),
    "InterpreterGetOutputTensor": (c_void_p, (c_void_p, c_int32)),
    "TensorType": (c_int32, (c_void_p,)),
    "TensorNumDims": (c_int32, (c_void_p,)),
    "TensorDim": (c_int32, (c_void_p, c_int32)),
    "TensorByteSize": (c_size_t, (c_void_p,)),
    "TensorName": (c_char_p, (c_void_p,)),
    "TensorQuantizationParams": (_Quantisation, (c_void_p,)),
    "TensorCopyFromBuffer": (c_int32, (c_void_p, c_void_p, c_size_t)),
    "TensorCopyToBuffer": (c_int32, (c_void_p, c_void_p, c_size_t)),
}
_XNNPACK_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "XNNPackDelegateOptionsDefault": (_XnnpackOptions, ()),
    "XNNPackDelegateCreate": (c_void_p, (c_void_p,)),
    "XNNPackDelegateDelete": (None, (c_void_p,)),
}


class Library:
    """The loaded library; functions are called without their prefix, `library.call.Version()`."""

    def __init__(self, path: Path) -> None:
        try:
            loaded = ctypes.CDLL(str(path))
            self.call = _bind(loaded, _SIGNATURES)
        except (OSError, AttributeError) as error:
            raise RuntimeLoadError(f"{NAME}: {path}: {error}", code="no-runtime") from error
        self.has_xnnpack = hasattr(loaded, "TfLiteXNNPackDelegateCreate")
        if self.has_xnnpack:
            self.call.__dict__.update(_bind(loaded, _XNNPACK_SIGNATURES).__dict__)
        self.version = self.call.Version().decode("ascii")

    def takes(self, data: bytes) -> bool:
        """Whether a file's operators are there; makes no use of it beyond that."""
        model = self.call.ModelCreate(data, len(data))
        interpreter = self.call.InterpreterCreate(model, None) if model else None
        if interpreter:
            self.call.InterpreterDelete(interpreter)
        if model:
            self.call.ModelDelete(model)
        return bool(interpreter)


class _Functions:
    """Functions of the library by name."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def _bind(
    library: ctypes.CDLL, signatures: dict[str, tuple[type | None, tuple[type, ...]]]
) -> _Functions:
    functions = _Functions()
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"TfLite{name}")
        function.restype, function.argtypes = result, list(arguments)
        functions.__dict__[name] = function
    return functions


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of an interpreter."""

    handle: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    size_bytes: int


class Interpreter:
    """One model of one input. Use it from the thread that made it."""

    input: Tensor
    output: Tensor

    def __init__(self, library: Library, path: Path, num_threads: int = 1) -> None:
        self._call: Any = library.call
        self._interpreter: Any = None
        self._delegate: Any = None
        self._has_answer = False
        self._model = self._call.ModelCreateFromFile(bytes(path))
        if not self._model:
            raise RuntimeLoadError(f"{NAME}: {path.name[:12]}…: not a TFLite file that it reads")
        try:
            self._open(library, num_threads)
        except RuntimeLoadError:
            self.close()
            raise
        self.kernels = "xnnpack" if self._delegate else "reference"

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def set_input(self, data: bytes) -> None:
        """Copy a whole input in."""
        if len(data) != self.input.size_bytes:
            raise RuntimeLoadError(
                f"{NAME}: expected {self.input.size_bytes} input bytes, got {len(data)}",
                code="wrong-tensor",
            )
        self._has_answer = False
        self._succeed(self._call.TensorCopyFromBuffer(self.input.handle, data, len(data)), "input")

    def invoke(self) -> None:
        """Run the model once."""
        self._succeed(self._call.InterpreterInvoke(self._interpreter), "invoke")
        self._has_answer = True

    def get_output(self) -> bytes:
        """Copy the first output out; only after `invoke`."""
        if not self._has_answer:
            raise RuntimeLoadError(f"{NAME}: output read before invoke", code="invoke-failed")
        data = ctypes.create_string_buffer(self.output.size_bytes)
        self._succeed(self._call.TensorCopyToBuffer(self.output.handle, data, len(data)), "output")
        return data.raw

    def run_rows(self, inputs: int, outputs: int, rows: int) -> None:
        """Run `rows` inputs that lie one behind the other at address `inputs`."""
        call, interpreter = self._call, self._interpreter
        source, size_in = self.input.handle, self.input.size_bytes
        target, size_out = self.output.handle, self.output.size_bytes
        for row in range(rows):
            failed = (
                call.TensorCopyFromBuffer(source, inputs + row * size_in, size_in)
                or call.InterpreterInvoke(interpreter)
                or call.TensorCopyToBuffer(target, outputs + row * size_out, size_out)
            )
            self._succeed(failed, "invoke")

    def close(self) -> None:
        """Free it."""
        if self._interpreter:
            self._call.InterpreterDelete(self._interpreter)
        if self._delegate:
            self._call.XNNPackDelegateDelete(self._delegate)
        if self._model:
            self._call.ModelDelete(self._model)
        self._interpreter = self._delegate = self._model = None

    def _open(self, library: Library, num_threads: int) -> None:
        call = self._call
        options = call.InterpreterOptionsCreate()
        call.InterpreterOptionsSetNumThreads(options, num_threads)
        if library.has_xnnpack:
            xnnpack = call.XNNPackDelegateOptionsDefault()
            xnnpack.num_threads = num_threads
            self._delegate = call.XNNPackDelegateCreate(ctypes.byref(xnnpack))
            call.InterpreterOptionsAddDelegate(options, self._delegate)
        self._interpreter = call.InterpreterCreate(self._model, options)
        call.InterpreterOptionsDelete(options)
        if not self._interpreter or call.InterpreterAllocateTensors(self._interpreter):
            raise RuntimeLoadError(f"{NAME}: the library refuses the model (see its own message)")
        counts = (
            call.InterpreterGetInputTensorCount(self._interpreter),
            call.InterpreterGetOutputTensorCount(self._interpreter),
        )
        if counts[0] != 1 or not counts[1]:
            raise RuntimeLoadError(
                f"{NAME}: expected one input and an output tensor, got {counts[0]} and {counts[1]}",
                code="wrong-tensor",
            )
        self.input = self._tensor(call.InterpreterGetInputTensor(self._interpreter, 0))
        self.output = self._tensor(call.InterpreterGetOutputTensor(self._interpreter, 0))

    def _tensor(self, handle: int) -> Tensor:
        call = self._call
        shape = tuple(call.TensorDim(handle, i) for i in range(call.TensorNumDims(handle)))
        kind, size = call.TensorType(handle), call.TensorByteSize(handle)
        name = (call.TensorName(handle) or b"").decode("utf-8", "replace")
        if kind not in TYPES or min(shape, default=1) < 1:
            raise RuntimeLoadError(
                f"{NAME}: tensor {name[:80]!r}: type {kind}, shape {shape}: not usable as input "
                "or output",
                code="wrong-tensor",
            )
        quantisation = call.TensorQuantizationParams(handle)
        scale, zero = quantisation.scale, quantisation.zero_point
        return Tensor(handle, name, shape, TYPES[kind], scale, zero, size)

    def _succeed(self, status: int, step: str) -> None:
        if status:
            raise RuntimeLoadError(f"{NAME}: {step}: status {status}", code="invoke-failed")
