"""Children end with their parent, and their failures are told with the log's tail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_fleet import processes
from local_fleet.ports import free_ports
from local_fleet.processes import LocalFleetError

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('up', flush=True); time.sleep(600)",
]


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends (or is a zombie of somebody else) in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_stops_a_child_and_one_that_ignores_the_request(tmp_path: Path) -> None:
    children = [
        processes.start("sleeper", SLEEPER, tmp_path),
        processes.start("stubborn", STUBBORN, tmp_path),
    ]
    for child in children:
        processes.wait_until(lambda one=child: one.tail() == "up", 10, "up", child)
    processes.stop(children, seconds=0.5)
    assert [child.running for child in children] == [False, False]
    assert children[1].process.returncode == -signal.SIGKILL


def test_children_die_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from local_fleet import processes; "
        f"child = processes.start('child', {SLEEPER!r}, Path({str(tmp_path)!r})); "
        "print(child.pid, flush=True); time.sleep(600)"
    )
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


def test_a_child_that_ends_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = processes.start("broken", [sys.executable, "-c", "exit('no port left')"], tmp_path)
    with pytest.raises(LocalFleetError, match=r"(?s)broken ended with code 1.*no port left"):
        processes.wait_until(lambda: False, 10, "it answers", child)


def test_waiting_ends_in_time(tmp_path: Path) -> None:
    child = processes.start("sleeper", SLEEPER, tmp_path)
    try:
        with pytest.raises(LocalFleetError, match=r"it answers: not seen within 0\.1 s"):
            processes.wait_until(lambda: False, 0.1, "it answers", child)
    finally:
        processes.stop([child], seconds=1)


def test_a_failed_command_is_one_error_with_its_last_lines() -> None:
    with pytest.raises(LocalFleetError, match=r"(?s)exit code 3.*first this"):
        processes.run(
            [sys.executable, "-c", "import sys; print('first this', file=sys.stderr); sys.exit(3)"],
            timeout=10,
        )
    assert processes.run([sys.executable, "-c", "print('fine')"], timeout=10) == "fine\n"


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20
