"""Memory that agent and worker share: slots belong to one request, and only the agent writes."""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers import frames
from agent.workers.frames import FrameError, InferRequest
from agent.workers.shared import SLOT_BYTES, SLOTS, WORTH_BYTES, SharedRows, map_rows


@pytest.fixture
def rows():
    found = SharedRows()
    yield found
    found.close()


def test_a_worker_sees_what_the_agent_put(rows):
    region = map_rows(os.dup(rows.descriptor))
    data = os.urandom(WORTH_BYTES)
    offset = rows.put(data)
    assert region[offset : offset + len(data)] == data
    request = InferRequest(0, len(data) // 16, 4, data)
    payload = frames.encode_infer_shared(request, offset)
    seen = frames.decode_infer_shared(payload, region)
    assert (seen.carried, seen.fresh, seen.width, bytes(seen.values)) == (0, 512, 4, data)
    with pytest.raises(TypeError):
        region[0] = 1


def test_a_worker_can_neither_write_nor_change_the_size(rows):
    with pytest.raises(PermissionError):
        mmap.mmap(rows.descriptor, SLOT_BYTES)  # shared and writable
    with pytest.raises(PermissionError):
        os.pwrite(rows.descriptor, b"x", 0)
    for size in (0, 2 * SLOTS * SLOT_BYTES):
        with pytest.raises(PermissionError):
            os.ftruncate(rows.descriptor, size)


@pytest.mark.parametrize("size", [0, WORTH_BYTES - 1, SLOT_BYTES + 1])
def test_too_little_and_too_much_go_by_the_socket(rows, size):
    assert rows.put(bytes(size)) is None


@given(st.lists(st.booleans(), max_size=40))
def test_no_slot_is_written_while_a_request_holds_it(takes):
    rows, held = SharedRows(), {}
    try:
        for number, take in enumerate(takes):
            if take:
                data = bytes([number]) * WORTH_BYTES
                offset = rows.put(data)
                assert (offset is None) == (len(held) == SLOTS)
                if offset is not None:
                    assert offset not in held
                    held[offset] = data
            elif held:
                rows.free(min(held))
                del held[min(held)]
            region = map_rows(os.dup(rows.descriptor))
            assert all(region[at : at + WORTH_BYTES] == data for at, data in held.items())
    finally:
        rows.close()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x" * 19,
        frames.encode_infer_shared(InferRequest(0, 1, 4, b""), SLOTS * SLOT_BYTES - 15),
        frames.encode_infer_shared(InferRequest(2**32 - 1, 2**32 - 1, 2**32 - 1, b""), 0),
        frames.encode_infer_shared(InferRequest(0, 0, 0, b""), 2**64 - 1),
    ],
)
def test_rows_that_do_not_lie_in_it_are_refused(rows, payload):
    region = map_rows(os.dup(rows.descriptor))
    with pytest.raises(FrameError):
        frames.decode_infer_shared(payload, region)
