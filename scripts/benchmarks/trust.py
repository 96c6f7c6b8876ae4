"""Group trust: what staying up to date costs, and how soon a new device runs what was released."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import msgspec
from local_fleet.fleet import LocalFleet

from agent.trust import TRUST_NAME, Trust, load_trust
from agent.updater.__main__ import refresh
from agent.updater.pace import Limits
from agent.updater.session import Session
from agent.updater.web import HttpTransport
from benchmarks.figure import Figure, Options, figure, repeat
from benchmarks.serving import enrol_device, serving_release
from shoal.package import Package

STAGED_SECONDS = 60.0
POLL_SECONDS = 0.02
STAGED = "staged"
"""Code of the event that says that a release lies verified on the device."""


def refresh_bytes(options: Options) -> Figure:
    """Bytes both ways, headers included, of a refresh that finds nothing new."""
    with serving_release() as (fleet, package):
        state = enrol_device(fleet, package, "refresh")
        counter = Counter(load_trust(state).repository_url)
        (state / TRUST_NAME).write_bytes(msgspec.json.encode(Trust(counter.url)))

        def run() -> float:
            before = counter.bytes
            _refresh(state)
            return counter.bytes - before

        runs = repeat(run, options)
        counter.close()
    return figure("refresh_bytes", "B", runs)


def refresh_time(options: Options) -> Figure:
    """Time of a refresh that finds nothing new, the start of its process aside."""
    with serving_release() as (fleet, package):
        state = enrol_device(fleet, package, "refresh")

        def run() -> float:
            begun = time.perf_counter()
            _refresh(state)
            return (time.perf_counter() - begun) * 1000

        return figure("refresh_time", "ms", repeat(run, options))


def enrol_to_first_release(options: Options) -> Figure:
    """From a token in the hand to a release, verified by TUF and director, on the disk."""
    with serving_release() as (fleet, package):
        numbers = iter(range(1000))
        return figure(
            "enrol_to_first_release",
            "s",
            repeat(lambda: _first_release(fleet, package, f"fresh-{next(numbers)}"), options),
        )


def _first_release(fleet: LocalFleet, package: Package, name: str) -> float:
    """The rollout is asked for as soon as the device is enrolled, while its agent starts."""
    manifest = package.manifest
    begun = time.perf_counter()
    enrol_device(fleet, package, name)
    fleet.start_agent(name)
    created = fleet.client.create_rollout(
        {
            "model": manifest.model,
            "version": manifest.version,
            "selector": f"device:{name}",
            "waves": [{"name": "all", "share": 1.0}],
            "soak_seconds": 0,
            "probation_seconds": 1,
            "start": True,
        }
    )
    log = fleet.logs / f"{name}.log"
    deadline = begun + STAGED_SECONDS
    while f"code={STAGED} " not in log.read_text(errors="replace"):
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{name}: nothing staged in {STAGED_SECONDS:g} s; log {log}")
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - begun
    fleet.client.wait_for_rollout(created["rollout"], timeout=STAGED_SECONDS)
    fleet.stop_agent(name)
    return seconds


def _refresh(state: Path) -> None:
    transports = [HttpTransport(load_trust(state).repository_url)]
    refresh(Session(state, Limits(), transports))


class Counter:
    """Passes connections on, and counts what goes over them."""

    def __init__(self, url: str) -> None:
        address, _, path = url.removeprefix("http://").partition("/")
        host, _, port = address.rpartition(":")
        self._to = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/{path}"
        self.bytes = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(self._to)
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        while data := one.recv(65536):
            with self._lock:
                self.bytes += len(data)
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


MEASUREMENTS = {
    "refresh_bytes": refresh_bytes,
    "refresh_time": refresh_time,
    "enrol_to_first_release": enrol_to_first_release,
}
