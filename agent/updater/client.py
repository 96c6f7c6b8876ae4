"""The agent's side of the updater: start the process, pass a request, hear the result."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

import msgspec

from agent.blocks import Blocks
from agent.updater.wire import (
    Asked,
    Came,
    Progress,
    Reached,
    Refused,
    Reply,
    Request,
    decode_reply,
)
from shoal.errors import ShoalError

TIMEOUT_SECONDS = 3600.0
MAX_LINE_BYTES = 1 << 20
MAX_WAITING_BYTES = 1 << 20
"""Of blocks that an updater has not read; more is dropped, and asked for again."""

OnProgress = Callable[[Progress | Reached], None]


class UpdaterError(ShoalError):
    """The updater refused, or died."""

    code = "updater-failed"

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.sentence, code=refused.code)
        self.retryable = refused.retryable


def ignore(progress: Progress | Reached) -> None:
    """Hear of no progress."""


async def ask_updater(
    request: Request, on_progress: OnProgress = ignore, blocks: Blocks | None = None
) -> Reply:
    """Run one updater to its end; raise `UpdaterError` unless it succeeded.

    Without `blocks` a transfer over the broker finds no link.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent.updater",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    blocks = blocks or Blocks(lambda payload: False)
    deliver = _Delivery(process)
    try:
        deliver.write(msgspec.json.encode(request))
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reply = await _listen(process, on_progress, blocks, deliver)
    except (TimeoutError, OSError, ValueError) as error:
        reply = Refused("updater-failed", f"updater: {error!r}", retryable=True)
    finally:
        blocks.forget(deliver)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if isinstance(reply, Refused):
        raise UpdaterError(reply)
    return reply


async def _listen(
    process: asyncio.subprocess.Process,
    on_progress: OnProgress,
    blocks: Blocks,
    deliver: _Delivery,
) -> Reply:
    """Until it says its result."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        reply = decode_reply(line)
        if isinstance(reply, Progress | Reached):
            on_progress(reply)
        elif isinstance(reply, Asked):
            blocks.ask(reply.transfer, reply.payload, deliver)
        else:
            return reply
    return Refused("updater-died", "updater: ended without a result", retryable=True)


class _Delivery:
    """Writes lines to an updater."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        self._pipe = process.stdin

    def write(self, line: bytes) -> None:
        """One line; one too many for an updater that does not read is dropped."""
        if self._pipe.transport.get_write_buffer_size() <= MAX_WAITING_BYTES:
            self._pipe.write(line + b"\n")

    def __call__(self, transfer: str, payload: bytes) -> None:
        self.write(msgspec.json.encode(Came(transfer, payload)))
