"""Requests and answers of the Open Inference Protocol, version 2, as bytes and values. Pure.

A model has one input tensor, `input`, FP32: [n, features], or [n, window_rows, features] where a
window has several rows; in the contract's units, before any preprocessing. Each output of the
contract is a tensor FP32 [n], the label is `label`, BYTES [n]. Tensors may be JSON or follow the
binary tensor data extension.

Source: github.com/kserve/open-inference-protocol, and the extension as Triton documents it.
"""

from __future__ import annotations

import array
import json
import math
import struct
import sys
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.local_http import HttpError, Response
from shoal.protocol.manifest import Contract

INPUT, LABEL = "input", "label"
HEADER_LENGTH = "inference-header-content-length"
MAX_WINDOWS = 4096


@dataclass(frozen=True, slots=True)
class Call:
    """One inference request. `values` is little-endian float32, `windows` whole windows."""

    id: str
    windows: int
    values: bytes
    outputs: tuple[tuple[str, bool], ...]
    """Name, and whether it is wanted as binary; empty means all, as `binary` says."""
    binary: bool
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Tensor:
    """One output tensor: FP32 from `values`, or BYTES from `texts`."""

    name: str
    values: list[float] | None = None
    texts: list[str] | None = None

    @property
    def datatype(self) -> str:
        """As the protocol calls it."""
        return "BYTES" if self.values is None else "FP32"

    def data(self) -> list[Any]:
        """As JSON, which knows no NaN."""
        if self.values is None:
            return list(self.texts or [])
        return [value if math.isfinite(value) else None for value in self.values]

    def encode(self) -> bytes:
        """As the binary extension has it."""
        if self.values is None:
            found = [text.encode() for text in self.texts or []]
            return b"".join(struct.pack("<I", len(one)) + one for one in found)
        return _little_endian(array.array("f", self.values))


def input_shape(contract: Contract) -> list[int]:
    """Shape of the input tensor after the first, free dimension."""
    width = len(contract.features)
    return [width] if contract.window_rows == 1 else [contract.window_rows, width]


def output_names(contract: Contract, labels: list[str]) -> list[str]:
    """Every tensor an answer may have."""
    names = [output.name for output in contract.outputs]
    return [*names, LABEL] if labels and LABEL not in names else names


def describe_model(
    name: str, version: str, platform: str, contract: Contract, labels: list[str]
) -> dict[str, Any]:
    """The model's metadata."""
    outputs = output_names(contract, labels)
    fields = {output.name for output in contract.outputs}
    return {
        "name": name,
        "versions": [version],
        "platform": platform,
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *input_shape(contract)]}],
        "outputs": [
            {"name": one, "datatype": "FP32" if one in fields else "BYTES", "shape": [-1]}
            for one in outputs
        ],
    }


def decode_call(
    body: bytes, headers: dict[str, str], contract: Contract, labels: list[str]
) -> Call:
    """Read a request, or raise `HttpError` 400 saying what was expected and what came."""
    if headers.get("content-encoding", "identity") != "identity":
        raise HttpError(415, f"content-encoding {headers['content-encoding']}: not supported")
    length = headers.get(HEADER_LENGTH, str(len(body)))
    if not length.isdigit() or int(length) > len(body):
        raise HttpError(400, f"{HEADER_LENGTH}: {length}, of a body of {len(body)} bytes")
    try:
        document = msgspec.json.decode(body[: int(length)], type=_Call)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"request: {error}") from error
    if len(document.inputs) != 1 or document.inputs[0].name != INPUT:
        names = ", ".join(one.name for one in document.inputs)
        raise HttpError(400, f"inputs: expected one tensor named {INPUT}, got {names or 'none'}")
    tensor = document.inputs[0]
    windows = _count_windows(tensor, input_shape(contract))
    values = _read_values(tensor, body[int(length) :])
    _check_complete(contract, values)
    known = output_names(contract, labels)
    for one in document.outputs:
        if one.name not in known:
            raise HttpError(400, f"outputs: expected {', '.join(known)}, got {one.name}")
    wanted = tuple(
        (one.name, bool(one.parameters.get("binary_data", False))) for one in document.outputs
    )
    timeout = document.parameters.get("timeout", 0)
    return Call(
        document.id,
        windows,
        values,
        wanted,
        bool(document.parameters.get("binary_data_output", False)),
        timeout / 1e6 if isinstance(timeout, int | float) and timeout > 0 else math.inf,
    )


def encode_answer(call: Call, name: str, version: str, tensors: list[Tensor]) -> Response:
    """The answer, in JSON or with binary tensors behind it."""
    by_name = {tensor.name: tensor for tensor in tensors}
    wanted = call.outputs or tuple((tensor.name, call.binary) for tensor in tensors)
    outputs, blobs = [], []
    for one, binary in wanted:
        tensor = by_name[one]
        entry: dict[str, Any] = {
            "name": one,
            "datatype": tensor.datatype,
            "shape": [call.windows],
        }
        if binary:
            blobs.append(tensor.encode())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = tensor.data()
        outputs.append(entry)
    document = {"model_name": name, "model_version": version, "outputs": outputs}
    if call.id:
        document["id"] = call.id
    if not blobs:
        return Response.of_json(document)
    head = json.dumps(document).encode()
    return Response(
        200,
        head + b"".join(blobs),
        {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))},
    )


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Call(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] = []
    id: str = ""
    parameters: dict[str, Any] = {}


def _count_windows(tensor: _Input, shape: list[int]) -> int:
    wanted = f"FP32 [1 to {MAX_WINDOWS}, {', '.join(map(str, shape))}]"
    if tensor.datatype != "FP32" or tensor.shape[1:] != shape:
        raise HttpError(400, f"{INPUT}: expected {wanted}, got {tensor.datatype} {tensor.shape}")
    if not 1 <= tensor.shape[0] <= MAX_WINDOWS:
        raise HttpError(400, f"{INPUT}: expected {wanted}, got {tensor.shape}")
    return tensor.shape[0]


def _read_values(tensor: _Input, rest: bytes) -> bytes:
    count = math.prod(tensor.shape)
    size = tensor.parameters.get("binary_data_size")
    if size is not None:
        if size != count * 4 or len(rest) != size:
            raise HttpError(
                400, f"{INPUT}: expected {count * 4} bytes behind the header, got {len(rest)}"
            )
        return rest
    try:
        values = array.array("f", _flat(tensor.data))
    except (TypeError, RecursionError) as error:
        raise HttpError(400, f"{INPUT}: data holds what is no number: {error}") from error
    if len(values) != count:
        raise HttpError(400, f"{INPUT}: expected {count} values, got {len(values)}")
    return _little_endian(values)


def _check_complete(contract: Contract, raw: bytes) -> None:
    """A window with a hole would be no window; only `fill` says what to put there."""
    values = array.array("f", raw)
    if sys.byteorder == "big":
        values.byteswap()
    if (total := sum(values)) == total:
        return
    width = len(contract.features)
    for at, feature in enumerate(contract.features):
        column = values[at::width]
        if feature.missing != "fill" and any(value != value for value in column):
            raise HttpError(400, f"{INPUT}: a value of {feature.name} is missing (NaN)")


def _flat(data: Any) -> list[float]:
    """Nested or flat, as the protocol allows both."""
    if not isinstance(data, list):
        raise TypeError(f"expected a list, got {type(data).__name__}")
    values: list[Any] = data
    while values and isinstance(values[0], list):
        values = [value for one in values for value in one]
    return values


def _little_endian(values: array.array[float]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
