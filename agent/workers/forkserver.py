"""The forkserver: imports numpy and the runtime once, then clones a worker a request.

It has made no interpreter and runs one thread, so forking it is safe. It speaks JSON over a
SOCK_SEQPACKET socket: `{"fork": n}` with the worker's socket and the memory of its rows attached is
answered by `{"fork": n, "pid": p}`, and each ended worker by `{"exit": p, "status": s, "words": w}`
(negative: signal; words: the end of what it wrote to standard error, where a runtime says why it
gives up).
It dies with the agent, and its workers die with it.

Started by the pool as `python -m agent.workers.forkserver FD [lean]`. A lean one imports neither
numpy nor a runtime, for workers that call the C library.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable

from agent.workers import serving
from agent.workers.limits import forbid_core_dumps
from agent.workers.shared import map_rows
from agent.workers.trim import trim_memory

PR_SET_PDEATHSIG = 1
LEAN = "lean"
MAX_WORDS = 600

_words: dict[int, int] = {}
"""Process id → where its standard error is read."""


def main() -> None:
    """Serve the control socket given as argument until it closes."""
    _die_with_parent()
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's business
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    is_lean = LEAN in sys.argv
    importlib.import_module("agent.lean.model" if is_lean else "agent.workers.worker")
    if not is_lean:
        importlib.import_module("agent.runtimes").preload()
    gc.collect()
    gc.freeze()  # what is shared stays shared: the collector does not touch it any more
    trim_memory()
    control.send(json.dumps({"ready": True}).encode())
    load = serving.load_lean if is_lean else serving.load_full
    _serve(control, load, wake_read, [wake_read, wake_write])


def _serve(control: socket.socket, load: serving.Load, wake: int, own: list[int]) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == wake:
                    os.read(wake, 512)
                    _reap(control)
                elif not _fork_one(control, load, own):
                    return


def _fork_one(control: socket.socket, load: serving.Load, own: list[int]) -> bool:
    message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
    if not message:
        return False
    connection = socket.socket(fileno=descriptors[0])
    words_read, words_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        control.close()
        for descriptor in (*own, words_read, *_words.values()):
            os.close(descriptor)
        os.set_blocking(words_write, False)  # a full pipe loses words, never time
        os.dup2(words_write, 2)
        os.close(words_write)
        _run(lambda: serving.serve(connection, map_rows(descriptors[1]), load))
    connection.close()
    os.close(descriptors[1])
    os.close(words_write)
    os.set_blocking(words_read, False)
    _words[pid] = words_read
    control.send(json.dumps({"fork": json.loads(message)["fork"], "pid": pid}).encode())
    return True


def _run(serve: Callable[[], None]) -> None:
    """Be a worker, then end without running the forkserver's exit handlers."""
    status = 1
    try:
        _die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        forbid_core_dumps()
        _prefer_for_oom_kill()
        serve()
        status = 0
    except ConnectionError:
        status = 0  # the agent is gone
    except Exception:
        sys.excepthook(*sys.exc_info())  # _exit below would lose it; the agent sees only the status
        sys.stderr.flush()
    finally:
        os._exit(status)


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended = {
            "exit": pid,
            "status": os.waitstatus_to_exitcode(status),
            "words": _take_words(pid),
        }
        control.send(json.dumps(ended).encode())


def _take_words(pid: int) -> str:
    """Pass on what an ended worker wrote to standard error; return its end."""
    descriptor = _words.pop(pid, None)
    if descriptor is None:
        return ""
    try:
        data = os.read(descriptor, 65536)
    except BlockingIOError:
        data = b""
    finally:
        os.close(descriptor)
    sys.stderr.buffer.write(data)
    sys.stderr.flush()
    return data[-MAX_WORDS:].decode(errors="replace").strip()


def _die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(1)


def _prefer_for_oom_kill() -> None:
    """Let the kernel take a worker, not the agent, when memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - procfs, no path logic
            file.write("500")
    except OSError:
        return  # not permitted in this container: the default stands


if __name__ == "__main__":
    main()
