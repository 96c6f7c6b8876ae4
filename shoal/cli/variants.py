"""Runs the model files of a package on this machine, before any device has to.

With the steps that a device puts around them, so a file that would fail its golden samples
in the field fails here, in a sentence. Uses whichever runtimes are installed.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from shoal.cli.table import OnProgress
from shoal.dense import DenseNetwork, decode_dense
from shoal.errors import InvalidInputError
from shoal.package import Package
from shoal.protocol.manifest import Contract
from shoal.steps import postprocess, preprocess

Floats = NDArray[np.float32]
RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
CHUNK = 256


def find_runtime() -> Any | None:
    """The first TFLite runtime that imports here, or None."""
    for name in RUNTIMES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


class Model(Protocol):
    """One model file, loaded; inputs and outputs are (n, values) in real units."""

    input_values: int

    def forward(self, inputs: Floats, on_rows: OnProgress = ...) -> Floats:
        """Run rows of inputs."""
        ...


def load_model(kind: str, data: bytes, what: str, runtime: Any | None = None) -> Model | None:
    """Load a file as its kind, or raise; None where nothing here runs that kind.

    `runtime` is what `find_runtime` gave.
    """
    if kind == "tflite" and runtime is not None:
        return TfliteModel(runtime, data, what)
    if kind == "numpy":
        return NumpyModel(data, what)
    if kind == "onnx" and find_spec("onnxruntime") is not None:
        return OnnxModel(data, what)
    return None


class NumpyModel:
    """One dense network."""

    def __init__(self, data: bytes, what: str) -> None:
        try:
            self._network = DenseNetwork(decode_dense(data))
        except InvalidInputError as error:
            raise InvalidInputError(f"{what}: {error.sentence}", code=error.code) from error
        self._what = what
        self.input_values = self._network.inputs

    def forward(self, inputs: Floats, on_rows: OnProgress = lambda done, total: None) -> Floats:
        """Run all rows."""
        _check_width(self._what, inputs, self.input_values)
        return self._network.forward(inputs)


class OnnxModel:
    """One `.onnx` file in onnxruntime."""

    def __init__(self, data: bytes, what: str) -> None:
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = runtime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
            ((self._name, kind, shape),) = [
                (one.name, one.type, one.shape) for one in self._session.get_inputs()
            ]
            self._shape = [int(size) for size in shape[1:]]
        except Exception as error:  # its exceptions have no common base but this one
            raise InvalidInputError(
                f"{what}: expected an ONNX model of one input of a known shape that runs here, "
                f"got {_one_line(error)}"
            ) from error
        if kind != "tensor(float)":
            raise InvalidInputError(f"{what}: expected a float32 input, got {kind}")
        self._what = what
        self.input_values = int(np.prod(self._shape))

    def forward(self, inputs: Floats, on_rows: OnProgress = lambda done, total: None) -> Floats:
        """Run row by row."""
        _check_width(self._what, inputs, self.input_values)
        found = []
        for number, row in enumerate(inputs, 1):
            try:
                output = self._session.run(None, {self._name: row.reshape(1, *self._shape)})[0]
            except Exception as error:  # its exceptions have no common base but this one
                raise InvalidInputError(
                    f"{self._what}: the model does not run: {_one_line(error)}"
                ) from error
            found.append(output.reshape(-1))
            if number % CHUNK == 0:
                on_rows(number, len(inputs))
        return np.stack(found)


def _check_width(what: str, inputs: Floats, width: int) -> None:
    if inputs.shape[1] != width:
        raise InvalidInputError(
            f"{what}: expected {inputs.shape[1]} input values as the contract says "
            f"(window_rows × features), got {width}"
        )


class TfliteModel:
    """One `.tflite` file, loaded."""

    def __init__(self, runtime: Any, data: bytes, what: str) -> None:
        self._what = what
        try:
            self._interpreter = runtime.Interpreter(model_content=data, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InvalidInputError(
                f"{what}: expected a TFLite model that runs here, got {_one_line(error)}"
            ) from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or not outputs:
            raise InvalidInputError(
                f"{what}: expected one input and an output tensor, "
                f"got {len(inputs)} and {len(outputs)}"
            )
        self._input, self._output = inputs[0], outputs[0]
        if self._input["shape"][0] != 1:
            raise InvalidInputError(
                f"{what}: expected batch size 1, got input shape {self._input['shape'].tolist()}"
            )
        for tensor in (self._input, self._output):
            if np.dtype(tensor["dtype"]).kind not in "fiu" or tensor["dtype"] == np.float16:
                raise InvalidInputError(
                    f"{what}: expected float32 or integer tensors, "
                    f"got {np.dtype(tensor['dtype'])} in {tensor['name']!r}"
                )
        self.input_values = int(np.prod(self._input["shape"]))

    def forward(self, inputs: Floats, on_rows: OnProgress = lambda done, total: None) -> Floats:
        """Run row by row, as devices do."""
        _check_width(self._what, inputs, self.input_values)
        quantised = _quantise(self._input, inputs).reshape(-1, *self._input["shape"])
        found = []
        for number, row in enumerate(quantised, 1):
            found.append(self._invoke(row))
            if number % CHUNK == 0:
                on_rows(number, len(quantised))
        return _dequantise(self._output, np.stack(found))

    def _invoke(self, row: NDArray[Any]) -> NDArray[Any]:
        try:
            self._interpreter.set_tensor(self._input["index"], row)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise InvalidInputError(
                f"{self._what}: the model does not run: {_one_line(error)}"
            ) from error
        found: NDArray[Any] = self._interpreter.get_tensor(self._output["index"]).reshape(-1)
        return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _quantise(tensor: dict[str, Any], values: Floats) -> NDArray[Any]:
    kind = np.dtype(tensor["dtype"])
    if kind == np.float32:
        return np.ascontiguousarray(values)
    scale, zero = tensor["quantization"]
    if scale:
        values = np.rint(values / np.float32(scale)) + zero
    limits = np.iinfo(kind)
    return np.clip(np.nan_to_num(values, nan=float(zero)), limits.min, limits.max).astype(kind)


def _dequantise(tensor: dict[str, Any], values: NDArray[Any]) -> Floats:
    scale, zero = tensor["quantization"]
    real = values.astype(np.float32)
    return (real - np.float32(zero)) * np.float32(scale) if scale else real


def answers(contract: Contract, model: Model, rows: Floats) -> tuple[Floats, list[str] | None]:
    """Output values and labels of complete rows, through the contract's steps."""
    inputs = preprocess(contract, rows)
    outputs = model.forward(inputs)
    try:
        return postprocess(contract, inputs, outputs)
    except (IndexError, KeyError, ValueError) as error:
        raise InvalidInputError(
            f"contract.postprocess: does not fit the model's {outputs.shape[1]} output values: "
            f"{type(error).__name__} {error}"
        ) from error


def load_models(package: Package, runtime: Any) -> tuple[dict[str, Model], dict[str, str]]:
    """Variants that load by name, and the others with why they do not."""
    models: dict[str, Model] = {}
    failures: dict[str, str] = {}
    for one in package.manifest.variants:
        try:
            model = load_model(one.runtime, package.files[one.file], one.file, runtime)
        except InvalidInputError as error:
            failures[one.name] = error.sentence
        else:
            if model is not None:
                models[one.name] = model
    return models, failures


def golden_misses(package: Package, models: dict[str, Model]) -> dict[str, str]:
    """Variants that would fail the golden samples on a device, each with a clause saying how."""
    manifest = package.manifest
    golden = manifest.golden
    if golden is None:
        return {}
    samples = msgspec.json.decode(package.files[golden.file])
    contract = manifest.contract
    shape = (-1, len(contract.features))
    windows = [np.asarray(sample, np.float32).reshape(shape) for sample in samples["inputs"]]
    wanted = np.asarray(samples["outputs"], np.float32)
    allowed = min(golden.absolute.values()) + golden.relative * np.abs(wanted)
    misses = {}
    for name, model in models.items():
        got = np.stack([answers(contract, model, window)[0][0] for window in windows])
        excess = np.nan_to_num(np.abs(got - wanted) / np.maximum(allowed, 1e-12), nan=np.inf)
        sample, field = np.unravel_index(int(excess.argmax()), excess.shape)
        if excess[sample, field] > 1:
            misses[name] = (
                f"golden sample {sample}: expected {contract.outputs[field].name} "
                f"{wanted[sample, field]:.6g} ± {allowed[sample, field]:.3g}, "
                f"got {got[sample, field]:.6g}"
            )
    return misses


def agreement(
    contract: Contract, first: Model, second: Model, rows: Floats
) -> dict[str, float | int]:
    """How alike two variants answer: share of equal labels, and the largest difference."""
    values, labels = answers(contract, first, rows)
    others, other_labels = answers(contract, second, rows)
    found: dict[str, float | int] = {
        "windows": len(values),
        "largest_difference": float(f"{np.abs(values - others).max():.6g}"),
    }
    if labels is not None and other_labels is not None:
        same = sum(a == b for a, b in zip(labels, other_labels, strict=True))
        found["same_label"] = round(same / len(labels), 6)
    return found
