"""Dense networks as a small JSON file, run in numpy: the `numpy` runtime's model format.

    {"format": "shoal-dense", "version": 1, "layers": [
      {"weights": [[0.5, -1.0]], "bias": [0.1], "activation": "sigmoid"}]}

`weights` has a row an output. Activations come from a closed list; the first layer's inputs are
the model's, the last layer's outputs its answer. For linear models and small perceptrons: it needs
no runtime but numpy, and can be read and compared by eye.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from shoal.errors import InvalidInputError

Floats = NDArray[np.float32]
Activation = Literal["linear", "relu", "sigmoid", "tanh", "softmax"]
FORMAT, VERSION = "shoal-dense", 1
MAX_FILE_BYTES = 16 * 1024 * 1024
_Row = Annotated[list[float], Meta(min_length=1, max_length=65536)]


class DenseLayer(Struct, kw_only=True, frozen=True):
    """activation(weights · input + bias)."""

    weights: Annotated[list[_Row], Meta(min_length=1, max_length=65536)]
    bias: _Row
    activation: Activation = "linear"


class DenseFile(Struct, kw_only=True, frozen=True):
    """A whole network."""

    format: Literal["shoal-dense"] = "shoal-dense"
    version: Literal[1] = 1
    layers: Annotated[list[DenseLayer], Meta(min_length=1, max_length=64)]


class BrokenDenseError(InvalidInputError):
    """A file that is not a dense network."""

    code = "bad-model"


def encode_dense(layers: list[tuple[Floats, Floats, Activation]]) -> bytes:
    """The file of (weights, bias, activation) layers; same layers, same bytes."""
    return msgspec.json.encode(
        DenseFile(
            layers=[
                DenseLayer(
                    weights=[[_short(value) for value in row] for row in weights],
                    bias=[_short(value) for value in bias],
                    activation=activation,
                )
                for weights, bias, activation in layers
            ]
        )
    )


def decode_dense(data: bytes) -> DenseFile:
    """Read and check a file, or raise `BrokenDenseError`."""
    if len(data) > MAX_FILE_BYTES:
        raise BrokenDenseError(f"dense network: {len(data)} bytes, at most {MAX_FILE_BYTES} read")
    try:
        file = msgspec.json.decode(data, type=DenseFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenDenseError(f"dense network: {error}") from error
    for number, layer in enumerate(file.layers):
        widths = {len(row) for row in layer.weights}
        if len(widths) != 1 or len(layer.bias) != len(layer.weights):
            raise BrokenDenseError(
                f"dense network: layer {number}: rows of {sorted(widths)[:4]} weights and "
                f"{len(layer.bias)} biases for {len(layer.weights)} outputs"
            )
    for number, (before, layer) in enumerate(itertools.pairwise(file.layers), 1):
        if len(layer.weights[0]) != len(before.weights):
            raise BrokenDenseError(
                f"dense network: layer {number}: expected {len(before.weights)} weights a row, "
                f"got {len(layer.weights[0])}"
            )
    return file


class DenseNetwork:
    """A file's layers as arrays."""

    def __init__(self, file: DenseFile) -> None:
        self._layers = [
            (
                _array(layer.weights).T.copy(),
                _array(layer.bias),
                _ACTIVATIONS[layer.activation],
            )
            for layer in file.layers
        ]
        for number, (weights, bias, _) in enumerate(self._layers):
            if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
                raise BrokenDenseError(f"dense network: layer {number}: beyond float32")
        self.inputs = len(self._layers[0][0])
        self.outputs = len(self._layers[-1][1])

    def forward(self, inputs: Floats) -> Floats:
        """Rows of inputs to rows of outputs."""
        values = inputs
        for weights, bias, activate in self._layers:
            values = activate(values @ weights + bias)
        return values


def _array(values: object) -> Floats:
    with np.errstate(over="ignore"):  # the caller looks for infinities
        found: Floats = np.asarray(values, np.float32)
    return found


def _sigmoid(values: Floats) -> Floats:
    # through tanh, which does not overflow
    result: Floats = np.float32(0.5) * (np.tanh(np.float32(0.5) * values) + np.float32(1))
    return result


def _softmax(values: Floats) -> Floats:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    result: Floats = raised / raised.sum(axis=1, keepdims=True)
    return result


_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "linear": lambda values: values,
    "relu": lambda values: np.maximum(values, np.float32(0)),
    "sigmoid": _sigmoid,
    "tanh": lambda values: np.tanh(values),
    "softmax": _softmax,
}


def _short(value: float) -> float:
    """As many digits as float32 holds."""
    return float(f"{value:.9g}")
