"""Of a batch that kills, only what kills is set aside, at a bounded cost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.narrowing import MAX_LOSSES, ask_one_by_one, losses_allowed
from agent.pipeline.parts import share, together
from agent.workers.frames import InferAnswer, InferRequest
from agent.workers.pool import BatchFailedError


@given(st.integers(1, 300), st.sets(st.integers(0, 299)), st.integers(1, MAX_LOSSES))
def test_every_part_is_answered_or_failed_once_and_in_order(parts, deadly, losses):
    asked, failed, ends = [], [], []

    async def ask(part):
        if part in deadly:
            raise BatchFailedError("no")
        asked.append(part)

    def fail(start, stop, _error):
        failed.extend(range(start, stop))
        ends.append(start)

    asyncio.run(ask_one_by_one(parts, losses, ask, fail))
    assert asked == sorted(asked)
    assert sorted(asked + failed) == list(range(parts))
    assert len(ends) <= losses
    if len(deadly & set(range(parts))) < losses:
        assert failed == sorted(deadly & set(range(parts)))


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_windows_of_one_poisoned_row_are_within_what_a_batch_may_cost(window, stride):
    containing = -(-window // min(stride, window))
    assert losses_allowed(window, min(stride, window)) > min(containing, MAX_LOSSES - 1)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(1, 3))
def test_peers_get_the_windows_that_they_sent(windows, window_rows):
    requests = [
        InferRequest(0, n * window_rows, 1, bytes([at]) * n * window_rows * 4)
        for at, n in enumerate(windows)
    ]
    whole = together(requests)
    firsts = [whole.values[at * window_rows * 4 : at * window_rows * 4 + 4]
              for at in range(sum(windows))]  # fmt: skip
    answer = InferAnswer(sum(windows), 1, 0, 9, bytes(whole.fresh), b"".join(firsts), b"")
    found = list(share(answer, [one.fresh for one in requests], window_rows))
    assert [one.windows for one in found] == windows
    assert [one.values for one in found] == [bytes([at]) * n * 4 for at, n in enumerate(windows)]
    assert [len(one.rows) for one in found] == [one.fresh for one in requests]
