"""The buffer between source and model: bounded, in order, every row once, drops counted."""

from __future__ import annotations

import array
import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.buffer import MAX_BYTES, Buffer
from agent.ports import Samples

NAMES = ["a"]


def _samples(numbers):
    return Samples(list(numbers), array.array("f", numbers).tobytes(), 1)


def _numbers(samples):
    assert array.array("f", samples.values).tolist() == samples.times_ms
    return samples.times_ms


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 150)),
        st.tuples(st.just("take"), st.integers(1, 64)),
    ),
    max_size=40,
)


@given(steps, st.sampled_from(["newest", "oldest"]), st.integers(64, 200))
def test_rows_leave_once_and_in_order_and_the_rest_is_counted(history, policy, most):
    async def run():
        buffer, came, left, dropped = Buffer(most, policy), 0, [], 0
        for what, count in history:
            if what == "put":
                await buffer.put(NAMES, _samples(range(came, came + count)))
                came += count
            elif (taken := buffer.take(count)) is not None:
                assert 0 < len(taken[1].times_ms) <= count
                left += _numbers(taken[1])
            assert buffer.rows <= most
        dropped = buffer.take_overload()
        while (taken := buffer.take(64)) is not None:
            left += _numbers(taken[1])
        assert left == sorted(set(left))
        assert len(left) + dropped == came
        assert buffer.rows == 0

    asyncio.run(run())


@pytest.mark.parametrize(("policy", "kept"), [("newest", (36, 100)), ("oldest", (0, 64))])
async def test_the_policy_says_which_rows_are_kept(policy, kept):
    buffer = Buffer(64, policy)
    for number in range(100):
        await buffer.put(NAMES, _samples([number]))
    _, taken = buffer.take(64)
    assert _numbers(taken) == list(range(*kept))
    assert buffer.take_overload() == 36


async def test_a_source_that_can_wait_waits_and_loses_nothing():
    buffer = Buffer(64, "wait")
    left = []

    async def fill():
        for start in range(0, 1000, 20):
            await buffer.put(NAMES, _samples(range(start, start + 20)))
        buffer.close()

    filling = asyncio.create_task(fill())
    while await buffer.wait():
        assert buffer.rows <= 64
        left += _numbers(buffer.take(33)[1])
    await filling
    assert left == list(range(1000))
    assert buffer.take_overload() == 0


async def test_wide_rows_are_bounded_by_bytes():
    buffer, width = Buffer(100_000, "newest"), 4096
    row = Samples([0] * 64, bytes(64 * width * 4), width)
    for _ in range(100):
        await buffer.put(NAMES, row)
    assert buffer.rows * width * 4 <= MAX_BYTES


async def test_rows_read_for_other_features_never_share_a_batch():
    buffer, other = Buffer(1000, "wait"), ["a"]
    await buffer.put(NAMES, _samples([0, 1]))
    await buffer.put(other, _samples([2]))
    await buffer.put(other, _samples([3]))
    names, taken = buffer.take(64)
    assert names is NAMES
    assert _numbers(taken) == [0, 1]
    names, taken = buffer.take(64)
    assert names is other
    assert _numbers(taken) == [2, 3]
