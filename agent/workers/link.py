"""The socket to one worker process: requests in order, answers in the same order.

More than one request may be under way; the worker has the oldest, the others wait in the socket.
A deadline begins when the worker can: at once, or when the answer before is in. If the process is
lost, the oldest request is the one that it was lost over, or the next where none was under way; of
the others it has begun none, so they fail as `NotBegunError` and may be sent to another process as
if nothing had been.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from agent.workers import frames
from agent.workers.forkserver_client import Forked, Forkserver, kill
from agent.workers.frames import InferRequest, Kind
from agent.workers.oom import OomCounter, explain_kill
from agent.workers.shared import SharedRows
from agent.workers.starvation import Starvation

OUT_OF_MEMORY = ("bad_alloc", "MemoryError", "annot allocate memory", "out of memory")
"""What runtimes write to standard error when an allocation is refused."""


class NotBegunError(Exception):
    """The process was lost before it began this request."""


@dataclass(slots=True)
class Sent:
    """A request on its way.

    `answer` fails with `TimeoutError`, `OSError` or `FrameError` where the process was lost over
    this request, and with `NotBegunError` where it was lost before.
    """

    link: Link
    answer: asyncio.Future[tuple[Kind, bytes]]
    seconds: float
    offset: int | None = None
    """Where its rows lie in the memory that both see."""
    starvation: Starvation | None = None


class Link(asyncio.Protocol):
    """One process, until it is lost or closed."""

    def __init__(self, server: Forkserver, pid: int, rows: SharedRows | None = None) -> None:
        self.pid = pid
        self._rows = rows
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._requests: deque[Sent] = deque()
        self._deadline: asyncio.TimerHandle | None = None
        self._received = bytearray()
        self._lost: Exception | None = None
        """Why there is no process any more, for the next request; the first of them is told."""
        self._closing: asyncio.Task[tuple[str, str]] | None = None

    @classmethod
    async def open(cls, server: Forkserver, forked: Forked) -> Link:
        """Speak with a process over its socket."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(
            lambda: cls(server, forked.pid, forked.rows), sock=forked.connection
        )
        return link

    def infer(self, request: InferRequest, seconds: float) -> Sent:
        """Send a micro-batch, its rows through shared memory where a slot is free."""
        offset = self._rows.put(request.values) if self._rows and self._lost is None else None
        if offset is None:
            return self.send(frames.encode(Kind.INFER, frames.encode_infer(request)), seconds)
        payload = frames.encode_infer_shared(request, offset)
        return self.send(frames.encode(Kind.INFER_SHARED, payload), seconds, offset)

    def send(self, frame: bytes, seconds: float, offset: int | None = None) -> Sent:
        """Send a request that may take `seconds` of processor time once its turn has come."""
        sent = Sent(self, self._loop.create_future(), seconds, offset)
        if self._lost is not None:
            _fail(sent, self._lost)
            self._lost = NotBegunError()
            return sent
        assert self._transport is not None
        self._requests.append(sent)
        self._transport.write(frame)
        if len(self._requests) == 1:
            self._begin()
        return sent

    @property
    def waiting(self) -> int:
        """Requests without an answer yet."""
        return len(self._requests)

    async def close(self, out_of_memory: OomCounter | None = None) -> tuple[str, str]:
        """Kill the process, wait for it, and say how it ended: a code and words."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._end(out_of_memory))
        return await asyncio.shield(self._closing)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: the socket is ready."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Asyncio: take answers, whole or in parts."""
        self._received += data
        try:
            while (found := frames.split(self._received)) is not None:
                self._answered(*found)
        except frames.FrameError as error:
            self._lose(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Asyncio: the process is gone."""
        self._lose(error or ConnectionResetError("worker: hung up"))

    def _begin(self) -> None:
        """The oldest request is the worker's now."""
        oldest = self._requests[0]
        oldest.starvation = Starvation(self.pid, oldest.seconds)
        self._deadline = self._loop.call_later(oldest.seconds, self._overdue)

    def _answered(self, kind: Kind, payload: bytes) -> None:
        if not self._requests:
            raise frames.FrameError(f"{kind.name} that nobody asked for")
        self._stop_clock()
        sent = self._requests.popleft()
        if sent.offset is not None and self._rows is not None:
            self._rows.free(sent.offset)  # not when whoever asked is cancelled: the worker reads on
        if not sent.answer.done():  # else whoever asked was cancelled
            sent.answer.set_result((kind, payload))
        if self._requests:
            self._begin()

    def _overdue(self) -> None:
        starvation = self._requests[0].starvation
        more = starvation.grant() if starvation is not None else 0.0
        if more > 0:
            self._deadline = self._loop.call_later(more, self._overdue)
            return
        kill(self.pid)  # nothing less ends a hung native call
        self._lose(TimeoutError())

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _lose(self, error: Exception) -> None:
        """Fail the oldest request with `error`; those behind it were not begun."""
        self._stop_clock()
        while self._requests:
            _fail(self._requests.popleft(), error)
            error = NotBegunError()
        self._lost = self._lost or error
        if self._transport is not None:
            self._transport.abort()  # what is not sent yet is for nobody

    async def _end(self, out_of_memory: OomCounter | None) -> tuple[str, str]:
        start = time.monotonic()
        self._lose(NotBegunError())
        # a process that has ended by itself tells its own status; one that has not is killed
        await asyncio.sleep(0)
        kill(self.pid)
        if self._rows is not None:
            self._rows.close()
            self._rows = None
        ended = await self._server.wait_exit(self.pid)
        if ended is None:
            return "worker-crashed", f"ended, status unknown after {time.monotonic() - start:.1f} s"
        kills = out_of_memory.take() if out_of_memory is not None else 0
        return explain_kill(*explain_end(*ended), ended.status, kills)


def _fail(sent: Sent, error: Exception) -> None:
    if not sent.answer.done():  # else whoever asked was cancelled
        sent.answer.set_exception(error)
        sent.answer.exception()  # seen: whoever asked may not look at it any more


def explain_end(status: int, words: str) -> tuple[str, str]:
    """Code and words for an exit status and the end of standard error."""
    how = f"died of signal {-status}" if status < 0 else f"ended with status {status}"
    last = words.splitlines()[-1][:200] if words and status else ""
    if any(hint in words for hint in OUT_OF_MEMORY):
        return "worker-memory", f"out of memory, {how} ({last})"
    return "worker-crashed", f"{how} ({last})" if last and not last.startswith("INFO") else how
