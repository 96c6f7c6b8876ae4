"""The runtimes that are not a Python interpreter of TFLite: its C library, onnxruntime, numpy."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from agent.installed import find_tflite_library
from agent.runtimes.base import Engine, Floats, RuntimeLoadError
from agent.runtimes.operators import HIGHEST_PROBED, probe_file, probe_operators
from agent.runtimes.tensors import TensorCodec, check_batch
from agent.tflite_c import NAME, Interpreter, Library
from shoal.dense import DenseNetwork, decode_dense
from shoal.errors import InvalidInputError


class TfliteCAdapter:
    """The TensorFlow Lite C library."""

    name = NAME
    kind = "tflite"

    def available(self) -> bool:
        """Whether the library is found and loads."""
        try:
            return self._library() is not None
        except RuntimeLoadError:
            return False

    def load(self, path: Path, num_threads: int) -> Engine:
        """Load a file; every refusal is a `RuntimeLoadError`."""
        library = self._library()
        if library is None:
            raise RuntimeLoadError(f"{NAME}: no library found", code="no-runtime")
        return TfliteCEngine(Interpreter(library, path, num_threads), library.version)

    def operators(self) -> dict[str, int]:
        """Operator → highest version, by asking the library."""
        library = self._library()
        if library is None:
            return {}
        return probe_operators(
            lambda code, version: library.takes(probe_file(code, version)), HIGHEST_PROBED
        )

    @functools.cached_property
    def _loaded(self) -> dict[Path, Library]:
        return {}

    def _library(self) -> Library | None:
        path = find_tflite_library()
        if path is not None and path not in self._loaded:
            self._loaded[path] = Library(path)
        return self._loaded[path] if path is not None else None


class TfliteCEngine:
    """The C library's interpreter behind numpy arrays."""

    name = NAME

    def __init__(self, interpreter: Interpreter, version: str) -> None:
        self.version, self.kernels = version, interpreter.kernels
        self._interpreter = interpreter
        self._input, self._output = (
            TensorCodec(f"{NAME}: tensor {t.name}", t.shape, t.dtype, t.scale, t.zero_point)
            for t in (interpreter.input, interpreter.output)
        )
        check_batch(NAME, self._input.shape)
        self.input_values, self.output_values = self._input.values, self._output.values

    def run(self, inputs: Floats) -> Floats:
        """Quantise all, run row by row, dequantise all."""
        rows = np.ascontiguousarray(self._input.encode(inputs))
        raw = np.empty((len(rows), self.output_values), self._output.dtype)
        self._interpreter.run_rows(rows.ctypes.data, raw.ctypes.data, len(rows))
        return self._output.decode(raw)


class OnnxAdapter:
    """onnxruntime on the processor."""

    name = "onnxruntime"
    kind = "onnx"

    def available(self) -> bool:
        """Whether it is installed."""
        return importlib.util.find_spec("onnxruntime") is not None

    def load(self, path: Path, num_threads: int) -> Engine:
        """Load a file; every refusal is a `RuntimeLoadError`."""
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common base but this one
            words = " ".join(str(error).split())[:500]
            raise RuntimeLoadError(f"{self.name}: {words}") from error
        return OnnxEngine(session, runtime.__version__)


class OnnxEngine:
    """One session; all rows at once where the model leaves the batch size open."""

    name = "onnxruntime"
    kernels = "onnxruntime"

    def __init__(self, session: Any, version: str) -> None:
        self.version = version
        self._session = session
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or not outputs:
            raise RuntimeLoadError(
                f"{self.name}: expected one input and an output tensor, "
                f"got {len(inputs)} and {len(outputs)}",
                code="wrong-tensor",
            )
        self._input, self._output = inputs[0].name, outputs[0].name
        batch, *self._shape = self._checked(inputs[0])
        self._is_open = not isinstance(batch, int)
        if not self._is_open:
            check_batch(self.name, (batch, *self._shape))
        self.input_values = int(np.prod(self._shape))
        self._checked(outputs[0])
        self.output_values = self._run(np.zeros((1, self.input_values), np.float32)).shape[1]

    def run(self, inputs: Floats) -> Floats:
        """Run all rows, one by one where the batch size is fixed."""
        if self._is_open:
            return self._run(inputs)
        return np.concatenate([self._run(inputs[i : i + 1]) for i in range(len(inputs))])

    def _run(self, rows: Floats) -> Floats:
        feed = {self._input: rows.reshape(len(rows), *self._shape)}
        try:
            (found,) = self._session.run([self._output], feed)
        except Exception as error:  # its exceptions have no common base but this one
            words = " ".join(str(error).split())[:500]
            raise RuntimeLoadError(f"{self.name}: {words}", code="invoke-failed") from error
        outputs: Floats = found.reshape(len(rows), -1)
        return outputs

    def _checked(self, tensor: Any) -> list[Any]:
        shape = list(tensor.shape)
        if tensor.type != "tensor(float)" or not all(isinstance(n, int) for n in shape[1:]):
            raise RuntimeLoadError(
                f"{self.name}: tensor {tensor.name[:80]!r}: expected float32 of a known shape, got "
                f"{tensor.type} {shape}",
                code="wrong-tensor",
            )
        return shape or [1]


class NumpyAdapter:
    """Dense networks of `shoal.dense` in numpy: for tiny models, wherever numpy is."""

    name = "numpy"
    kind = "numpy"

    def available(self) -> bool:
        """Always: workers need numpy anyway."""
        return True

    def load(self, path: Path, num_threads: int) -> Engine:
        """Load a file; every refusal is a `RuntimeLoadError`."""
        try:
            network = DenseNetwork(decode_dense(path.read_bytes()))
        except (InvalidInputError, OSError) as error:
            raise RuntimeLoadError(f"{self.name}: {error}") from error
        return NumpyEngine(network)


class NumpyEngine:
    """One network, all rows at once."""

    name = "numpy"
    version = np.__version__
    kernels = "numpy"

    def __init__(self, network: DenseNetwork) -> None:
        self.input_values, self.output_values = network.inputs, network.outputs
        self.run = network.forward
