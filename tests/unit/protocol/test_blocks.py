"""Blocks over the broker: what is encoded decodes, and what is cut makes the document again."""

from __future__ import annotations

from io import BytesIO

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.blocks import cut
from shoal.errors import InvalidInputError
from shoal.protocol.blocks import (
    BLOCK_BYTES,
    Block,
    BlockRequest,
    decode_block,
    decode_request,
    encode_block,
)


@given(st.integers(0, 255), st.integers(0, 2**40), st.integers(0, 2**40), st.binary(max_size=99))
def test_every_block_decodes_again(status, begin, total, data):
    block = Block(status, begin, total, data)
    assert decode_block(encode_block(block)) == block


@given(st.binary(max_size=3000), st.integers(1, 400), st.data())
def test_the_blocks_that_were_missed_and_no_others_are_cut(document, size, data):
    missing = data.draw(st.integers(1, 2**16 - 1))
    offset = data.draw(st.integers(0, len(document)))
    request = BlockRequest(
        transfer="t", path=f"files/{'0' * 64}", offset=offset, block_bytes=size, missing=missing
    )
    for block in cut(BytesIO(document), request):
        index, rest = divmod(block.begin - offset, size)
        assert rest == 0
        assert missing & (1 << index)
        assert block.data == document[block.begin : block.begin + size]
        assert block.total == len(document)


@pytest.mark.parametrize(
    "path",
    [
        "files/../secret",
        "files/" + "A" * 64,
        "metadata/../../secret.json",
        "metadata/.json",
        "/etc/passwd",
        "metadata/timestamp.json\n",
        "",
    ],
)
def test_what_is_no_document_cannot_be_asked_for(path):
    request = {"transfer": "t", "path": path, "offset": 0}
    with pytest.raises(InvalidInputError):
        decode_request(msgspec.json.encode(request))


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b"[" * 900, b"x" * 2000])
def test_what_is_no_request_is_refused(payload):
    with pytest.raises(InvalidInputError):
        decode_request(payload)


@pytest.mark.parametrize("payload", [b"", b"short", b"x" * (BLOCK_BYTES + 18)])
def test_what_is_no_block_is_refused(payload):
    with pytest.raises(InvalidInputError):
        decode_block(payload)
