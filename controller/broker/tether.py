"""Become another program that dies when this process's parent does.

Run as a file, `python -I -S tether.py <parent pid> <program> <arguments…>`, between fork and
the program: a function between fork and exec would run Python in a forked copy of a process
with threads. The bond is with the thread that started us (Linux, PR_SET_PDEATHSIG), and the
program must keep its user id, since a change of user undoes it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie, check that the parent still lives, and become the program."""
    parent, program, *arguments = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.exit(f"{program}: prctl failed, {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit(f"{program}: the process {parent} that starts it has ended")
    _allow_many_sockets()
    os.execv(program, [program, *arguments])  # noqa: S606 - the caller found the program


def _allow_many_sockets() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
