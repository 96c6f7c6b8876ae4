"""Figures of memory: real `shoal-agent` processes in a real fleet on this machine.

Every run enrols a device of its own; one agent runs at a time, since PSS divides what agents share.
The controller and this process share Python's own pages with it, so `baseline` holds the resident
set too: what the same would be if nothing were shared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
from local_fleet import processes
from local_fleet.fleet import LocalFleet
from local_fleet.memory import pss_bytes, tree, tree_pss_bytes

from agent.installed import find_tflite_library
from agent.introspect import C_LIBRARY, device_facts
from agent.updater.wire import FetchRequest, Staged, decode_reply
from benchmarks.figure import CannotMeasureError, Figure, Options, figure
from benchmarks.models import resnet
from benchmarks.serving import enrol_device, serving_release
from shoal.package import Package
from shoal.protocol.desired import Assignment

MODEL_SECONDS = 120.0
ROLLOUT_SECONDS = 120.0
UPDATER_SECONDS = 60.0
POLL_SECONDS = 0.001
RATE_HZ = 20.0


def agent_pss(options: Options) -> Figure:
    """Agent with a source and no model, broker connected, 60 s after its start."""
    runs = _runs(options)
    resident = {
        "what": "resident set, as if nothing were shared",
        "value": round(sorted(one.idle_rss for one in runs)[len(runs) // 2] / 1e6, 2),
        "unit": "MB",
    }
    return figure("agent_pss", "MB", [one.idle_pss / 1e6 for one in runs], resident)


def model_pss(options: Options) -> Figure:
    """What the agent and all its processes grow by when it is assigned ResNet-8 int8."""
    resnet()  # it is named in the figure: without its file there is none
    return figure("model_pss", "MB", [one.model_pss / 1e6 for one in _runs(options)])


def worker_pss(options: Options) -> Figure:
    """Of that, the worker process; the rest is the forkserver and the agent's own bookkeeping."""
    resnet()
    return figure("worker_pss", "MB", [one.worker_pss / 1e6 for one in _runs(options)])


def model_pss_c(options: Options) -> Figure:
    """`model_pss` on the TensorFlow Lite C library, where workers do without numpy."""
    resnet()
    if find_tflite_library() is None:
        raise CannotMeasureError(
            "needs the TensorFlow Lite C library: pip install 'shoal[agent-c]'"
        )
    with _environment("SHOAL_RUNTIMES", C_LIBRARY):
        runs = _measure(options)
    return figure("model_pss_c", "MB", [one.model_pss / 1e6 for one in runs])


def updater_peak(options: Options) -> Figure:
    """Highest resident set of the update process that fetches and verifies a whole release."""
    with serving_release() as (fleet, package):
        state = enrol_device(fleet, package, "updater")
        runs = [_updater_peak(state, package) / 1e6 for _ in range(options.runs + 1)]
    return figure("updater_peak", "MB", runs[1:])


@dataclass(frozen=True, slots=True)
class _Run:
    idle_pss: int
    idle_rss: int
    model_pss: int
    worker_pss: int


@cache
def _runs(options: Options) -> list[_Run]:
    return _measure(options)


def _measure(options: Options) -> list[_Run]:
    """No warm-up: memory does not get better by it."""
    settle = options.scaled(60.0, 20.0)
    runs = 1 if options.quick else options.runs
    with serving_release() as (fleet, package):
        return [_run(fleet, package, f"device-{number}", settle) for number in range(runs)]


def _run(fleet: LocalFleet, package: Package, name: str, settle: float) -> _Run:
    enrol_device(fleet, package, name)
    child = fleet.start_agent(name)
    started = time.monotonic()
    fleet.wait_for(lambda: fleet.client.device(name)["online"] or None, 30.0, f"{name} online")
    time.sleep(max(0.0, started + settle - time.monotonic()))
    idle_pss, idle_rss = tree_pss_bytes(child.pid), _tree_rss_bytes(child.pid)
    _assign(fleet, package, name)
    pids = tree(child.pid)  # agent, forkserver, worker
    loaded = {pid: pss_bytes(pid) for pid in pids}
    processes.stop([fleet.children.pop(name)])
    return _Run(idle_pss, idle_rss, sum(loaded.values()) - idle_pss, loaded[pids[-1]])


def _assign(fleet: LocalFleet, package: Package, name: str) -> None:
    """Roll the release out to one device and wait until it has answered for a while."""
    manifest = package.manifest
    created = fleet.client.create_rollout(
        {
            "model": manifest.model,
            "version": manifest.version,
            "selector": f"device:{name}",
            "waves": [{"name": "all", "share": 1.0}],
            "soak_seconds": 1,
            "probation_seconds": 2,
            "start": True,
        }
    )
    fleet.client.wait_for_rollout(created["rollout"], timeout=ROLLOUT_SECONDS)
    model = manifest.model
    fleet.wait_for(
        lambda: [one for one in fleet.client.windows(name, model=model) if one["ok"]] or None,
        MODEL_SECONDS,
        f"{name} answers",
    )


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Agents are started with this process's environment."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _updater_peak(state: Path, package: Package) -> int:
    """Run the updater as the agent does; follow the high-water mark that Linux keeps for it."""
    manifest = package.manifest
    for path in (state / "files").iterdir():
        path.unlink()
    assignment = Assignment(
        model=manifest.model,
        version=manifest.version,
        release_sequence=manifest.sequence,
        manifest_sha256=package.manifest_sha256,
        manifest_length=len(package.manifest_bytes),
    )
    request = FetchRequest(str(state), assignment, device_facts("", state))
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.updater"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(request) + b"\n")
    process.stdin.close()
    peak, deadline = 0, time.monotonic() + UPDATER_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        peak = max(peak, _high_water_bytes(process.pid))
        time.sleep(POLL_SECONDS)
    process.kill()
    last = process.stdout.read().splitlines()[-1]
    process.wait()
    if not isinstance(decode_reply(last), Staged):
        raise RuntimeError(f"updater: expected Staged, got {last!r}")  # noqa: TRY004 - its answer
    return peak


def _high_water_bytes(pid: int) -> int:
    return _status_bytes(pid, "VmHWM:")


def _tree_rss_bytes(pid: int) -> int:
    return sum(_status_bytes(one, "VmRSS:") for one in tree(pid))


def _status_bytes(pid: int, key: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    values = [line.split()[1] for line in text.splitlines() if line.startswith(key)]
    return int(values[0]) * 1024 if values else 0
