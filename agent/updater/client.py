"""The agent's side of the updater: start the process, pass a request, hear the result."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

import msgspec

from agent.updater.wire import Progress, Reached, Refused, Reply, Request, decode_reply
from shoal.errors import ShoalError

TIMEOUT_SECONDS = 3600.0
MAX_LINE_BYTES = 1 << 20


class UpdaterError(ShoalError):
    """The updater refused, or died."""

    code = "updater-failed"

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.sentence, code=refused.code)
        self.retryable = refused.retryable


async def ask_updater(
    request: Request, on_progress: Callable[[Progress | Reached], None] = lambda progress: None
) -> Reply:
    """Run one updater to its end; raise `UpdaterError` unless it succeeded."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent.updater",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(request))
        await process.stdin.drain()
        process.stdin.close()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while line := await process.stdout.readline():
                reply = decode_reply(line)
                if not isinstance(reply, Progress | Reached):
                    break
                on_progress(reply)
            else:
                reply = Refused("updater-died", "updater: ended without a result", retryable=True)
    except (TimeoutError, OSError, ValueError) as error:
        reply = Refused("updater-failed", f"updater: {error!r}", retryable=True)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if isinstance(reply, Refused):
        raise UpdaterError(reply)
    return reply
