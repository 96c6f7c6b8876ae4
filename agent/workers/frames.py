"""Frames between agent and worker: length, kind, payload, over a Unix stream socket.

All integers little-endian. A frame is `u32 length | u8 kind | payload`, where length counts kind
and payload. Inference payloads are packed numbers, everything else JSON. The codec is pure; both
ends and the tests share it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

Bytes = bytes | bytearray | memoryview
MAX_FRAME_BYTES = 64 * 1024 * 1024
HEADER = struct.Struct("<IB")
_INFER = struct.Struct("<III")
_INFER_SHARED = struct.Struct("<IIIQ")
_ANSWER = struct.Struct("<IIIQ")

USABLE, MISSING, NON_FINITE = 0, 1, 2
"""What became of a row, one byte each in an answer."""


class FrameError(Exception):
    """Bytes that are not a frame; the connection is of no more use."""


class Kind(IntEnum):
    """What a frame carries. Requests are answered by one ANSWER, INFO or ERROR, in order."""

    LOAD = 1
    INFER = 2
    GOLDEN = 3
    STATISTICS = 4
    WARM_UP = 5
    INFER_SHARED = 6
    ANSWER = 10
    INFO = 11
    ERROR = 12


@dataclass(frozen=True, slots=True)
class InferRequest:
    """`values` is float32, (carried + fresh) × width: context rows first, then new ones."""

    carried: int
    fresh: int
    width: int
    values: Bytes


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """`rows`: one status byte a fresh row. `values`: float32, windows × outputs.

    `labels`: one byte a window, an index into the labels told at load; empty without labels.
    """

    windows: int
    outputs: int
    out_of_range: int
    invoke_ns: int
    rows: bytes
    values: bytes
    labels: bytes


def encode(kind: Kind, payload: bytes) -> bytes:
    """Return a whole frame."""
    length = len(payload) + 1
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"frame {kind.name}: {length} bytes, at most {MAX_FRAME_BYTES}")
    return HEADER.pack(length, kind) + payload


def decode_header(header: Bytes) -> tuple[int, Kind]:
    """Return payload length and kind from the first `HEADER.size` bytes."""
    length, kind = HEADER.unpack(header)
    if not 1 <= length <= MAX_FRAME_BYTES:
        raise FrameError(f"frame: {length} bytes, expected 1 to {MAX_FRAME_BYTES}")
    try:
        return length - 1, Kind(kind)
    except ValueError as error:
        raise FrameError(f"frame: unknown kind {kind}") from error


def split(received: bytearray) -> tuple[Kind, bytes] | None:
    """Take the first frame out of what was received; None while it is not whole."""
    if len(received) < HEADER.size:
        return None
    length, kind = decode_header(received[: HEADER.size])
    end = HEADER.size + length
    if len(received) < end:
        return None
    payload = bytes(received[HEADER.size : end])
    del received[:end]
    return kind, payload


def encode_infer(request: InferRequest) -> bytes:
    """Payload of INFER."""
    head = _INFER.pack(request.carried, request.fresh, request.width)
    return b"".join((head, request.values))


def encode_infer_shared(request: InferRequest, offset: int) -> bytes:
    """Payload of INFER_SHARED: the rows lie at `offset` of the memory that both sides see."""
    return _INFER_SHARED.pack(request.carried, request.fresh, request.width, offset)


def decode_infer_shared(payload: Bytes, region: memoryview) -> InferRequest:
    """Decode a payload of INFER_SHARED, or raise `FrameError`."""
    if len(payload) != _INFER_SHARED.size:
        raise FrameError(f"infer: {len(payload)} bytes, expected {_INFER_SHARED.size}")
    carried, fresh, width, offset = _INFER_SHARED.unpack(payload)
    end = offset + (carried + fresh) * width * 4
    if end > len(region):
        raise FrameError(f"infer: rows end at {end} of {len(region)} shared bytes")
    return InferRequest(carried, fresh, width, region[offset:end])


def decode_infer(payload: Bytes) -> InferRequest:
    """Decode a payload of INFER, or raise `FrameError`."""
    if len(payload) < _INFER.size:
        raise FrameError(f"infer: {len(payload)} bytes, too short")
    carried, fresh, width = _INFER.unpack_from(payload)
    values = memoryview(payload)[_INFER.size :]  # not copied: it may be megabytes
    if len(values) != (carried + fresh) * width * 4:
        raise FrameError(f"infer: {len(values)} bytes for {carried} + {fresh} rows of {width}")
    return InferRequest(carried, fresh, width, values)


def encode_answer(answer: InferAnswer) -> bytes:
    """Payload of ANSWER."""
    head = _ANSWER.pack(answer.windows, answer.outputs, answer.out_of_range, answer.invoke_ns)
    return b"".join(
        (head, struct.pack("<I", len(answer.rows)), answer.rows, answer.values, answer.labels)
    )


def decode_answer(payload: bytes) -> InferAnswer:
    """Decode a payload of ANSWER, or raise `FrameError`."""
    if len(payload) < _ANSWER.size + 4:
        raise FrameError(f"answer: {len(payload)} bytes, too short")
    windows, outputs, outside, invoke_ns = _ANSWER.unpack_from(payload)
    (rows,) = struct.unpack_from("<I", payload, _ANSWER.size)
    values_at = _ANSWER.size + 4 + rows
    labels_at = values_at + windows * outputs * 4
    labels = payload[labels_at:]
    if labels_at > len(payload) or len(labels) not in (0, windows):
        raise FrameError(f"answer: {len(payload)} bytes for {windows} windows of {outputs}")
    return InferAnswer(
        windows,
        outputs,
        outside,
        invoke_ns,
        payload[_ANSWER.size + 4 : values_at],
        payload[values_at:labels_at],
        labels,
    )
