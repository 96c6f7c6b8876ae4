"""Documents in blocks over the broker, for devices that reach nothing else.

The device pulls: it publishes a `BlockRequest` on `fetch` (JSON) and gets each block it misses as
one message on `blocks/<transfer>`, raw bytes behind a header of 17: status (1), where in the
document it begins (8), length of the whole document (8), big-endian. It asks again for what
has not come. Nothing is believed for having come this way: hashes and signatures decide, as over
HTTP.

>>> decode_block(encode_block(Block(OK, 5, 9, b"tail")))
Block(status=0, begin=5, total=9, data=b'tail')
"""

from __future__ import annotations

import struct
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from shoal.errors import InvalidInputError
from shoal.ids import NAME_PATTERN
from shoal.protocol import SCHEMA

BLOCK_BYTES = 64 * 1024
MAX_BLOCKS = 16
"""In one request; a bit of `missing` each."""
MAX_REQUEST_BYTES = 1024
OK, NOT_THERE, BUSY = 0, 1, 2

_HEADER = struct.Struct(">BQQ")
PATH_PATTERN = r"^(metadata/[A-Za-z0-9][A-Za-z0-9._%-]{0,120}\.json|files/[0-9a-f]{64})\Z"


class BlockRequest(Struct, kw_only=True, frozen=True):
    """Send the blocks of `path` whose bit is set in `missing`.

    Block i begins at `offset` + i × `block_bytes`.
    """

    schema: int = SCHEMA
    transfer: Annotated[str, Meta(pattern=NAME_PATTERN, max_length=32)]
    path: Annotated[str, Meta(pattern=PATH_PATTERN)]
    offset: Annotated[int, Meta(ge=0, le=2**40)]
    block_bytes: Annotated[int, Meta(ge=1, le=BLOCK_BYTES)] = BLOCK_BYTES
    missing: Annotated[int, Meta(ge=1, lt=2**MAX_BLOCKS)] = 1


class Block(Struct, frozen=True):
    """One block, or why there is none."""

    status: int
    begin: int
    total: int
    data: bytes


def decode_request(payload: bytes) -> BlockRequest:
    """Decode what a device asks, or raise `InvalidInputError`."""
    if len(payload) > MAX_REQUEST_BYTES:
        raise InvalidInputError(f"block request: {len(payload)} bytes")
    try:
        return msgspec.json.decode(payload, type=BlockRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"block request: {error}") from error


def encode_block(block: Block) -> bytes:
    """The payload of one message on `blocks/<transfer>`."""
    return _HEADER.pack(block.status, block.begin, block.total) + block.data


def decode_block(payload: bytes) -> Block:
    """Decode a block, or raise `InvalidInputError`."""
    if not _HEADER.size <= len(payload) <= _HEADER.size + BLOCK_BYTES:
        raise InvalidInputError(f"block: {len(payload)} bytes")
    status, begin, total = _HEADER.unpack_from(payload)
    return Block(status, begin, total, payload[_HEADER.size :])
