"""A controller with one release, for figures that need whole processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_fleet.agents import AgentSpec
from local_fleet.fleet import LocalFleet

from benchmarks.models import small_model, write_rows
from shoal.package import Package, write_package

RATE_HZ = 20.0


@contextmanager
def serving_release() -> Iterator[tuple[LocalFleet, Package]]:
    """A controller that serves a small model's release."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as text:
        folder = Path(text)
        with LocalFleet(folder) as fleet:
            package = small_model(folder, fleet.signer)
            fleet.start_controller()
            path = folder / "release.shoal"
            write_package(package, path)
            fleet.release(path)
            yield fleet, package


def enrol_device(fleet: LocalFleet, package: Package, name: str) -> Path:
    """Enrol a device that reads 20 rows a second for the release's model; its state folder."""
    rows = write_rows(package, fleet.folder, 16)
    source = {"kind": "tensor-file", "path": str(rows), "rate_hz": RATE_HZ, "loop": True}
    fleet.enrol([AgentSpec(name, "bench", models={package.manifest.model: {"source": source}})])
    return fleet.agents[name].folder / "state"
