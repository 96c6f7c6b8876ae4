"""A child process in its own group, tied to this one, with its output in a bounded file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from controller.broker import tether

MAX_LOG_BYTES = 8 * 1024 * 1024
TAIL_BYTES = 16 * 1024


class Child:
    """One running program. Made by `start_child`; `pid` is the program's own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal, None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        self._process.send_signal(number)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until it ends, for at most `seconds`; return whether it has."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended()
        except TimeoutError:
            return False
        return True

    async def stop(self, seconds: float) -> None:
        """Ask it to end, and after `seconds` make it."""
        self.send(signal.SIGTERM)
        if not await self.wait(seconds):
            self.send(signal.SIGKILL)
            await self.wait()

    async def _ended(self) -> None:
        if not self.running:
            return
        # A pidfd becomes readable when the process ends: no thread, no polling, any event loop.
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        handle = os.pidfd_open(self.pid)
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        self._process.wait()


def start_child(command: list[str], log: Path) -> Child:
    """Start `command` in the folder of `log`; what it prints is appended there."""
    argv = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command]
    with open(log, "ab", opener=_private) as output:
        process = subprocess.Popen(  # noqa: S603 - the program was found by find_program
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            process_group=0,  # Ctrl-C on a terminal reaches the parent only, which stops us
        )
    return Child(process)


def log_size(log: Path) -> int:
    """Bytes in `log`, 0 when there is none."""
    return log.stat().st_size if log.exists() else 0


def log_tail(log: Path, lines: int, since: int = 0) -> str:
    """The last lines of `log` that were written after byte `since`, for an error's sentence."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, log_size(log) - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:])


def limit_log(log: Path) -> None:
    """Empty `log` when it has grown too large; its writer appends, so it goes on at the start."""
    if log_size(log) > MAX_LOG_BYTES:
        os.truncate(log, 0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
