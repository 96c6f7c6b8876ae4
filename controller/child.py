"""A child process that is started again when it dies, and ended with us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence

log = logging.getLogger("controller.child")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 10.0
STOP_SECONDS = 8.0


class ChildProcess:
    """One Python module as a process; its output is ours."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self._command = [sys.executable, "-m", *arguments]
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            process_group=0,  # a signal to our group is ours to pass on, in order
        )
        log.info("event=started child=%s pid=%d", self.name, self._process.pid)

    async def watch(self) -> None:
        """Start it again whenever it dies, until `stop` or cancellation."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while (process := self._process) is not None and not self._ending.is_set():
            began = loop.time()
            code = await process.wait()
            if self._ending.is_set():
                return
            if loop.time() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.error(
                "event=died child=%s exit_code=%d restart_seconds=%.1f", self.name, code, pause
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            await self.start()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL to what is left."""
        self._ending.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
