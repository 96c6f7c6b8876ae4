"""Starting child processes that never outlive their parent, and stopping them.

Each child leads a process group of its own, so that Ctrl-C on the terminal reaches only the
parent, which then stops its children in order. Linux tells each child when the parent is gone
(PR_SET_PDEATHSIG), so a SIGKILL of the parent leaves nothing either.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_Value = TypeVar("_Value")

STOP_SECONDS = 8.0
TAIL_LINES = 8
POLL_SECONDS = 0.05

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class LocalFleetError(Exception):
    """Something that was started did not do what it must, in one sentence."""


@dataclass(slots=True)
class Child:
    """One process under our care, with the file that gets all it prints."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Process id, and the id of its group."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines it printed."""
        return tail(self.log, lines)

    def kill(self) -> None:
        """SIGKILL to this process alone; what it started must notice by itself."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)


def start(
    name: str,
    argv: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Start `argv`; standard output and error go to `<folder>/<name>.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    parent = os.getpid()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            process_group=0,
            preexec_fn=lambda: _die_with(parent),
        )
    return Child(name, process, log)


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died between fork and prctl
        os._exit(1)


def run(
    argv: Sequence[str | Path], *, timeout: float, environment: Mapping[str, str] | None = None
) -> str:
    """Run a short command to its end and return what it printed, or raise with its last words."""
    words = [str(part) for part in argv]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **(environment or {})},
            timeout=timeout,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise LocalFleetError(f"{_shown(words)}: no end after {timeout:g} s") from None
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-TAIL_LINES:])
        raise LocalFleetError(f"{_shown(words)}: exit code {done.returncode}\n{last}")
    return done.stdout


def stop(children: Sequence[Child], seconds: float = STOP_SECONDS) -> None:
    """End all: SIGTERM at once to every group, SIGKILL to what is left after `seconds`."""
    for child in children:
        signal_group(child, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
    for child in children:
        signal_group(child, signal.SIGKILL)  # also what a child may have left in its group
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(STOP_SECONDS)


def signal_group(child: Child, number: signal.Signals) -> None:
    """Send a signal to a child and all of its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def wait_until(
    condition: Callable[[], _Value | None], seconds: float, what: str, child: Child
) -> _Value:
    """Return the first true value of `condition`, or raise naming `what` and the log's tail."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if not child.running:
            raise LocalFleetError(
                f"{child.name} ended with code {child.process.returncode} before {what}; "
                f"log {child.log}:\n{child.tail()}"
            )
        if time.monotonic() >= deadline:
            raise LocalFleetError(
                f"{what}: not seen within {seconds:g} s; log {child.log}:\n{child.tail()}"
            )
        time.sleep(POLL_SECONDS)


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a text file, or nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _shown(words: list[str]) -> str:
    return " ".join([Path(words[0]).name, *words[1:4]])
