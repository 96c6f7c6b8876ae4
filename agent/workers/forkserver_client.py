"""The agent's side of the forkserver: start it, ask for clones, hear of their ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from typing import NamedTuple

from agent.workers.shared import SharedRows
from shoal.errors import ShoalError

START_TIMEOUT_SECONDS = 60.0
FORK_TIMEOUT_SECONDS = 10.0
EXIT_TIMEOUT_SECONDS = 5.0
SEND_BYTES = 1024 * 1024
"""A micro-batch at once where the kernel lets us: fewer wake-ups on both sides."""
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # its threads would not survive a fork
    # arrays of a micro-batch stay with the worker, or each batch would fault all pages in again
    "MALLOC_MMAP_THRESHOLD_": "8388608",
    "MALLOC_TRIM_THRESHOLD_": "8388608",
}


class ForkserverError(ShoalError):
    """The forkserver did not start or has died."""

    code = "forkserver-failed"


class Ended(NamedTuple):
    """The end of a worker."""

    status: int
    """Negative for a signal."""
    words: str
    """The last it wrote to standard error."""


class Forked(NamedTuple):
    """A fresh worker."""

    pid: int
    connection: socket.socket
    rows: SharedRows


class Forkserver:
    """A running forkserver; made with `start`, restarted by making a new one."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._forks: dict[int, asyncio.Future[int]] = {}
        self._exits: dict[int, asyncio.Future[Ended | None]] = {}
        self._number = 0
        self.alive = True

    @classmethod
    async def start(cls, *, lean: bool = False) -> Forkserver:
        """Start the process and wait until it has imported everything; `lean`: without numpy."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        # from this thread: the child's parent-death signal follows the thread that made it
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - a few ms; our own module
            [
                *(sys.executable, "-m", "agent.workers.forkserver", str(theirs.fileno())),
                *(["lean"] if lean else []),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
        )
        theirs.close()
        server = cls(process, ours)
        asyncio.get_running_loop().add_reader(ours, server._on_message)
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await server._ready
        except TimeoutError as error:
            await server.stop()
            raise ForkserverError(
                f"forkserver: not ready within {START_TIMEOUT_SECONDS:.0f} s"
            ) from error
        return server

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def fork(self) -> Forked:
        """Make a fresh worker."""
        if not self.alive:
            raise ForkserverError("forkserver: has died")
        self._number += 1
        number = self._number  # several models may fork at once
        reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._forks[number] = reply
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        message = json.dumps({"fork": number}).encode()
        rows = SharedRows()
        try:
            socket.send_fds(self._control, [message], [theirs.fileno(), rows.descriptor])
            async with asyncio.timeout(FORK_TIMEOUT_SECONDS):
                pid = await reply
        except (OSError, TimeoutError, ForkserverError) as error:
            ours.close()
            rows.close()
            raise ForkserverError(f"forkserver: no worker: {error!r}") from error
        finally:
            theirs.close()
            self._forks.pop(number, None)
        ours.setblocking(False)
        return Forked(pid, ours, rows)

    async def wait_exit(self, pid: int) -> Ended | None:
        """How a worker ended; None if the forkserver cannot say."""
        future = self._exits.setdefault(pid, asyncio.get_running_loop().create_future())
        if not self.alive:
            return None
        try:
            async with asyncio.timeout(EXIT_TIMEOUT_SECONDS):
                return await asyncio.shield(future)
        except TimeoutError:
            return None
        finally:
            self._exits.pop(pid, None)

    async def stop(self) -> None:
        """End it and all its workers."""
        self._lose()
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def _on_message(self) -> None:
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        message = json.loads(data)
        if "ready" in message and not self._ready.done():
            self._ready.set_result(None)
        elif "fork" in message:
            self._exits[message["pid"]] = asyncio.get_running_loop().create_future()
            if reply := self._forks.get(message["fork"]):
                reply.set_result(message["pid"])
        elif "exit" in message:
            future = self._exits.setdefault(
                message["exit"], asyncio.get_running_loop().create_future()
            )
            if not future.done():
                future.set_result(Ended(message["status"], message["words"]))

    def _lose(self) -> None:
        if not self.alive:
            return
        self.alive = False
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        error = ForkserverError("forkserver: has died")
        for reply in self._forks.values():
            if not reply.done():
                reply.set_exception(error)
        for future in self._exits.values():
            if not future.done():
                future.set_result(None)  # cancelling it would cancel whoever waits
        if not self._ready.done():
            self._ready.set_exception(error)


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
