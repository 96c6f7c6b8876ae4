"""Writes dense networks as `.tflite`, float32 or full int8, through the flatbuffers schema.

A network is a list of `Dense` layers. The int8 form follows the TFLite quantisation
specification: activations int8 with one scale and zero point a tensor, weights int8 symmetric per
output channel, bias int32 with scale input × weight; input and output tensors are int8 too, so a
device quantises and dequantises with the tensors' own parameters. Float32 agrees with numpy to
1e-5, int8 to about two output steps (contract tests, both runtimes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Dense:
    """One fully connected layer: weights (outputs, inputs), bias (outputs,), ReLU or linear."""

    weights: Floats
    bias: Floats
    relu: bool = False


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    kind: int
    data: bytes = b""
    scales: tuple[float, ...] = ()
    zeros: tuple[int, ...] = ()


def forward(layers: list[Dense], inputs: Floats) -> list[Floats]:
    """Return the activations after every layer in numpy, the reference for both forms."""
    values, found = inputs, []
    for layer in layers:
        values = values @ layer.weights.T + layer.bias
        if layer.relu:
            values = np.maximum(values, 0)
        found.append(values.astype(np.float32))
    return found


def write_float32(layers: list[Dense], description: str = "shoal") -> bytes:
    """Return the network as a float32 `.tflite` file with batch size 1."""
    kind = tflite.TensorType.FLOAT32
    tensors = [_Tensor("input", (1, layers[0].weights.shape[1]), kind)]
    for i, layer in enumerate(layers):
        weights, bias = layer.weights.astype("<f4"), layer.bias.astype("<f4")
        tensors += [
            _Tensor(f"weights_{i}", weights.shape, kind, weights.tobytes()),
            _Tensor(f"bias_{i}", bias.shape, kind, bias.tobytes()),
            _Tensor(f"layer_{i}", (1, len(bias)), kind),
        ]
    return _file(layers, tensors, operator_version=1, runtime="1.5.0", description=description)


def write_int8(layers: list[Dense], calibration: Floats, description: str = "shoal") -> bytes:
    """Return the network fully in int8; `calibration` (n, inputs) sets the activations' ranges."""
    int8, int32 = tflite.TensorType.INT8, tflite.TensorType.INT32
    scale, zero = _affine(calibration)
    tensors = [
        _Tensor("input", (1, layers[0].weights.shape[1]), int8, b"", (scale,), (zero,)),
    ]
    for i, (layer, values) in enumerate(
        zip(layers, forward(layers, calibration), strict=True),
    ):
        per_channel = np.maximum(np.abs(layer.weights).max(axis=1), 1e-9) / 127
        weights = np.clip(np.round(layer.weights / per_channel[:, None]), -127, 127)
        bias_scales = per_channel * scale
        bias = np.clip(np.round(layer.bias / bias_scales), -(2**31) + 1, 2**31 - 1)
        scale, zero = _affine(values)
        channels = len(layer.bias)
        tensors += [
            _Tensor(
                f"weights_{i}",
                layer.weights.shape,
                int8,
                weights.astype(np.int8).tobytes(),
                tuple(map(float, per_channel)),
                (0,) * channels,
            ),
            _Tensor(
                f"bias_{i}",
                (channels,),
                int32,
                bias.astype("<i4").tobytes(),
                tuple(map(float, bias_scales)),
                (0,) * channels,
            ),
            _Tensor(f"layer_{i}", (1, channels), int8, b"", (scale,), (zero,)),
        ]
    return _file(layers, tensors, operator_version=5, runtime="1.14.0", description=description)


def _affine(values: Floats) -> tuple[float, int]:
    """Scale and zero point that map the range of `values`, with 0 in it, to -128…127."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = max((high - low) / 255, 1e-9)
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def _file(
    layers: list[Dense],
    tensors: list[_Tensor],
    *,
    operator_version: int,
    runtime: str,
    description: str,
) -> bytes:
    b = flatbuffers.Builder(4096)
    buffers = [_buffer(b, b"")] + [_buffer(b, t.data) for t in tensors if t.data]
    numbers = iter(range(1, len(buffers)))
    made = [_tensor(b, t, next(numbers) if t.data else 0) for t in tensors]
    operators = [_operator(b, i, layer) for i, layer in enumerate(layers)]
    last = len(tensors) - 1
    graph = _subgraph(b, made, operators, last)
    buffers.append(_buffer(b, runtime.encode().ljust(16, b"\0")))
    metadata = _metadata(b, "min_runtime_version", len(buffers) - 1)
    signature = _signature(b, last)
    code = _operator_code(b, operator_version)
    vectors = {
        "OperatorCodes": _offsets(b, [code]),
        "Subgraphs": _offsets(b, [graph]),
        "Buffers": _offsets(b, buffers),
        "Metadata": _offsets(b, [metadata]),
        "SignatureDefs": _offsets(b, [signature]),
    }
    text = b.CreateString(description)
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddDescription(b, text)
    for name, vector in vectors.items():
        getattr(tflite, f"ModelAdd{name}")(b, vector)
    b.Finish(tflite.ModelEnd(b), b"TFL3")
    return bytes(b.Output())


def _offsets(b: Any, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _buffer(b: Any, data: bytes) -> int:
    vector = None
    if data:
        b.StartVector(1, len(data), 16)  # the schema asks for 16-byte alignment
        b.head -= len(data)
        b.Bytes[b.head : b.head + len(data)] = data
        vector = b.EndVector()
    tflite.BufferStart(b)
    if vector is not None:
        tflite.BufferAddData(b, vector)
    return int(tflite.BufferEnd(b))


def _tensor(b: Any, tensor: _Tensor, buffer: int) -> int:
    name = b.CreateString(tensor.name)
    shape = b.CreateNumpyVector(np.array(tensor.shape, np.int32))
    quantisation = None
    if tensor.scales:
        scales = b.CreateNumpyVector(np.array(tensor.scales, np.float32))
        zeros = b.CreateNumpyVector(np.array(tensor.zeros, np.int64))
        tflite.QuantizationParametersStart(b)
        tflite.QuantizationParametersAddScale(b, scales)
        tflite.QuantizationParametersAddZeroPoint(b, zeros)
        tflite.QuantizationParametersAddQuantizedDimension(b, 0)
        quantisation = tflite.QuantizationParametersEnd(b)
    tflite.TensorStart(b)
    tflite.TensorAddShape(b, shape)
    tflite.TensorAddType(b, tensor.kind)
    tflite.TensorAddBuffer(b, buffer)
    tflite.TensorAddName(b, name)
    if quantisation is not None:
        tflite.TensorAddQuantization(b, quantisation)
    return int(tflite.TensorEnd(b))


def _operator(b: Any, number: int, layer: Dense) -> int:
    first = 3 * number  # tensors stand in the order input, then weights, bias, output a layer
    inputs = b.CreateNumpyVector(np.array([first, first + 1, first + 2], np.int32))
    outputs = b.CreateNumpyVector(np.array([first + 3], np.int32))
    tflite.FullyConnectedOptionsStart(b)
    activation = tflite.ActivationFunctionType
    tflite.FullyConnectedOptionsAddFusedActivationFunction(
        b, activation.RELU if layer.relu else activation.NONE
    )
    options = tflite.FullyConnectedOptionsEnd(b)
    tflite.OperatorStart(b)
    tflite.OperatorAddOpcodeIndex(b, 0)
    tflite.OperatorAddInputs(b, inputs)
    tflite.OperatorAddOutputs(b, outputs)
    tflite.OperatorAddBuiltinOptionsType(b, tflite.BuiltinOptions.FullyConnectedOptions)
    tflite.OperatorAddBuiltinOptions(b, options)
    return int(tflite.OperatorEnd(b))


def _subgraph(b: Any, tensors: list[int], operators: list[int], last: int) -> int:
    tensor_vector, operator_vector = _offsets(b, tensors), _offsets(b, operators)
    inputs = b.CreateNumpyVector(np.array([0], np.int32))
    outputs = b.CreateNumpyVector(np.array([last], np.int32))
    name = b.CreateString("main")
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensor_vector)
    tflite.SubGraphAddInputs(b, inputs)
    tflite.SubGraphAddOutputs(b, outputs)
    tflite.SubGraphAddOperators(b, operator_vector)
    tflite.SubGraphAddName(b, name)
    return int(tflite.SubGraphEnd(b))


def _operator_code(b: Any, version: int) -> int:
    code = tflite.BuiltinOperator.FULLY_CONNECTED
    tflite.OperatorCodeStart(b)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(b, code)
    tflite.OperatorCodeAddBuiltinCode(b, code)
    tflite.OperatorCodeAddVersion(b, version)
    return int(tflite.OperatorCodeEnd(b))


def _metadata(b: Any, name: str, buffer: int) -> int:
    text = b.CreateString(name)
    tflite.MetadataStart(b)
    tflite.MetadataAddName(b, text)
    tflite.MetadataAddBuffer(b, buffer)
    return int(tflite.MetadataEnd(b))


def _signature(b: Any, last: int) -> int:
    def tensor_map(name: str, index: int) -> int:
        text = b.CreateString(name)
        tflite.TensorMapStart(b)
        tflite.TensorMapAddName(b, text)
        tflite.TensorMapAddTensorIndex(b, index)
        return int(tflite.TensorMapEnd(b))

    inputs = _offsets(b, [tensor_map("input", 0)])
    outputs = _offsets(b, [tensor_map("output", last)])
    key = b.CreateString("serving_default")
    tflite.SignatureDefStart(b)
    tflite.SignatureDefAddInputs(b, inputs)
    tflite.SignatureDefAddOutputs(b, outputs)
    tflite.SignatureDefAddSignatureKey(b, key)
    tflite.SignatureDefAddSubgraphIndex(b, 0)
    return int(tflite.SignatureDefEnd(b))
