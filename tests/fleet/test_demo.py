"""`./scripts/demo` as people run it: everything observed, and nothing left when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_fleet.memory import PROC, children

DEMO_SECONDS = 280.0
END_SECONDS = 40.0
MARK = "SHOAL_TEST_MARK"
INTERRUPTED = 130


@dataclass
class Demo:
    """The demo as a process that leads its own group; all it starts inherit its mark."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    def wait_for(self, text: str) -> None:
        """Wait until it has printed `text`."""
        deadline = time.monotonic() + DEMO_SECONDS
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def left(self) -> list[str]:
        """Every process that still runs and carries the mark."""
        return [_command(pid) for pid in marked(self.mark)]

    def end(self) -> None:
        """Kill what a failed test may have left."""
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def marked(mark: str) -> list[int]:
    """Processes whose environment holds the mark; a zombie has no environment any more."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for path in PROC.glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if needle in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return f"{pid}: " + (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return f"{pid}: gone"


@pytest.fixture
def start_demo(tmp_path: Path, repository_root: Path) -> Iterator[Callable[..., Demo]]:
    """Starts the demo in a folder of its own: `start_demo("--check")`."""
    started: list[Demo] = []

    def start(*options: str) -> Demo:
        log, mark = tmp_path / "demo.log", uuid.uuid4().hex
        with log.open("wb") as output:
            process = subprocess.Popen(
                [repository_root / "scripts" / "demo", "--dir", tmp_path / "demo", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, MARK: mark},
                start_new_session=True,
            )
        started.append(Demo(process, log, mark))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture(scope="module", autouse=True)
def _marks_are_seen() -> None:
    """The search below must find what is there, or an empty answer would prove nothing."""
    mark = uuid.uuid4().hex
    with subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: mark}) as process:
        try:
            deadline = time.monotonic() + 10.0
            while marked(mark) != [process.pid]:  # not before its exec
                assert time.monotonic() < deadline
        finally:
            process.kill()
    assert marked(mark) == []


def test_demo_observes_everything_and_leaves_nothing(start_demo):
    demo = start_demo("--check", "--broker", "nats")
    code = demo.process.wait(DEMO_SECONDS)
    assert code == 0, demo.said()
    assert "check: everything was observed through the public API" in demo.said()
    assert demo.left() == []


@pytest.mark.parametrize("group", [True, False], ids=["group", "process"])
def test_ctrl_c_ends_every_process(start_demo, group):
    demo = start_demo("--broker", "mosquitto")
    # in the middle of a rollout, or while devices enrol
    demo.wait_for("Roll out release 1.0.0" if group else "Enrol 9 devices")
    if group:
        os.killpg(demo.process.pid, signal.SIGINT)
    else:
        demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(END_SECONDS) == INTERRUPTED, demo.said()
    assert demo.left() == []
    assert "demo: interrupted, everything is stopped" in demo.said()


def test_killed_demo_takes_every_process_with_it(start_demo):
    demo = start_demo("--broker", "nats")
    demo.wait_for("Roll out release 1.0.0")
    demo.process.kill()
    demo.process.wait()
    _expect_nothing_left(demo)


def test_killed_controller_ends_the_demo_with_a_sentence(start_demo):
    demo = start_demo("--broker", "mosquitto")
    demo.wait_for("Roll out release 1.0.0")
    controller = _find(demo, "shoal-controller serve")
    parts = children(controller)
    assert len(parts) == 2, [_command(pid) for pid in parts]  # broker and ingest
    os.kill(controller, signal.SIGKILL)
    assert demo.process.wait(END_SECONDS) == 1, demo.said()
    assert demo.said().splitlines()[-1].startswith("demo: "), demo.said()
    _expect_nothing_left(demo)


def _find(demo: Demo, words: str) -> int:
    found = [pid for pid in marked(demo.mark) if words in _command(pid)]
    assert len(found) == 1, demo.left()
    return found[0]


def _expect_nothing_left(demo: Demo) -> None:
    deadline = time.monotonic() + END_SECONDS
    while left := demo.left():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
