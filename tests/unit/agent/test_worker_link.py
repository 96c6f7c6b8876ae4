"""The link to a worker: answers in order, and blame for a lost process where it belongs."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers import frames
from agent.workers.frames import FrameError, Kind
from agent.workers.link import Link, NotBegunError


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data):
        self.written += data

    def abort(self):
        self.aborted = True


def _link():
    link, wire = Link(None, os.getpid()), Wire()
    link.connection_made(wire)
    return link, wire


def _became(sent):
    if not sent.answer.done():
        return "waits"
    error = sent.answer.exception()
    return type(error).__name__ if error else sent.answer.result()[1]


@given(
    st.lists(st.sampled_from(["send", "answer", "cancel"]), max_size=30),
    st.integers(1, 40),
    st.sampled_from([None, ConnectionResetError("gone")]),
)
def test_answers_meet_their_requests_and_only_the_oldest_is_blamed(steps, chunk, error):
    async def run():
        link, wire = _link()
        sent, answered, cancelled = [], 0, set()
        for number, step in enumerate(steps):
            if step == "send":
                sent.append(link.send(b"x", 60.0))
            elif step == "cancel" and sent:
                sent[number % len(sent)].answer.cancel()
                cancelled |= {at for at, one in enumerate(sent) if one.answer.cancelled()}
            elif step == "answer" and answered < len(sent):
                frame = frames.encode(Kind.ANSWER, b"%d" % answered)
                for start in range(0, len(frame), chunk):
                    link.data_received(frame[start : start + chunk])
                answered += 1
            assert link.waiting == len(sent) - answered
        link.connection_lost(error)
        assert wire.written == b"x" * len(sent)
        wanted = [b"%d" % at for at in range(answered)]
        wanted += ["ConnectionResetError", *["NotBegunError"] * len(sent)]
        for at, one in enumerate(sent):
            assert at in cancelled or _became(one) == wanted[at]
        late = [_became(link.send(b"x", 60.0)) for _ in range(2)]
        first = "ConnectionResetError" if answered == len(sent) else "NotBegunError"
        assert late == [first, "NotBegunError"]

    asyncio.run(run())


async def test_of_an_overdue_process_only_the_oldest_request_missed_its_deadline():
    process = await asyncio.create_subprocess_exec("sleep", "600")
    link, wire = Link(None, process.pid), Wire()
    link.connection_made(wire)
    first, second = link.send(b"a", 0.02), link.send(b"b", 600.0)
    with pytest.raises(TimeoutError):
        await first.answer
    with pytest.raises(NotBegunError):
        await second.answer
    assert wire.aborted
    assert await process.wait() == -9


async def test_bytes_that_are_no_frame_lose_the_process():
    link, wire = _link()
    first, second = link.send(b"a", 60.0), link.send(b"b", 60.0)
    link.data_received(b"\xff" * 8)
    with pytest.raises(FrameError):
        await first.answer
    with pytest.raises(NotBegunError):
        await second.answer
    assert wire.aborted


async def test_an_answer_that_nobody_asked_for_loses_the_process():
    link, wire = _link()
    link.data_received(frames.encode(Kind.INFO, b"{}"))
    assert wire.aborted
    assert _became(link.send(b"a", 60.0)) == "FrameError"
