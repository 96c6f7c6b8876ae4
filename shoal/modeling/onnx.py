"""Writes dense networks as ONNX without the onnx package: the few protobuf fields they need.

Field numbers are those of `onnx.proto`, IR version 8, operator set 13. The batch size is left
open, so that onnxruntime takes a whole micro-batch in one call.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from shoal.tflite.writer import Dense

IR_VERSION, OPERATOR_SET = 8, 13
_FLOAT = 1
_INT_ATTRIBUTE = 2


def write_onnx(layers: list[Dense], producer: str = "shoal") -> bytes:
    """Return the network as an ONNX file with input `input` and output `output`."""
    nodes, weights, before = b"", b"", "input"
    for number, layer in enumerate(layers):
        is_last = number == len(layers) - 1
        names = f"weights_{number}", f"bias_{number}"
        after = "output" if is_last and not layer.relu else f"layer_{number}"
        nodes += _node("Gemm", [before, *names], after, transB=1)
        weights += _tensor(names[0], layer.weights) + _tensor(names[1], layer.bias)
        before = after
        if layer.relu:
            before = "output" if is_last else f"relu_{number}"
            nodes += _node("Relu", [after], before)
    graph = (
        nodes
        + _bytes(2, b"main")
        + weights
        + _bytes(11, _value("input", layers[0].weights.shape[1]))
        + _bytes(12, _value("output", len(layers[-1].bias)))
    )
    operators = _bytes(1, b"") + _number(2, OPERATOR_SET)
    return (
        _number(1, IR_VERSION)
        + _bytes(2, producer.encode())
        + _bytes(7, graph)
        + _bytes(8, operators)
    )


def _node(kind: str, inputs: list[str], output: str, **attributes: int) -> bytes:
    body = b"".join(_bytes(1, name.encode()) for name in inputs)
    body += _bytes(2, output.encode()) + _bytes(3, output.encode()) + _bytes(4, kind.encode())
    for name, value in attributes.items():
        attribute = _bytes(1, name.encode()) + _number(3, value) + _number(20, _INT_ATTRIBUTE)
        body += _bytes(5, attribute)
    return _bytes(1, body)


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    sizes = b"".join(_number(1, size) for size in values.shape)
    data = values.astype("<f4").tobytes()
    return _bytes(5, sizes + _number(2, _FLOAT) + _bytes(8, name.encode()) + _bytes(9, data))


def _value(name: str, width: int) -> bytes:
    batch, size = _bytes(1, _bytes(2, b"batch")), _bytes(1, _number(1, width))
    tensor = _number(1, _FLOAT) + _bytes(2, batch + size)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + struct.pack("B", value)
