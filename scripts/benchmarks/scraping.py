"""What a scrape of `/metrics` costs at 100,000 devices, all in one rollout."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from sqlalchemy import insert, select

from benchmarks.figure import Figure, Options, figure, repeat
from benchmarks.ingest_rig import enrol_simulated
from controller.app import build_services
from controller.config import load_settings
from controller.database import writing
from controller.metrics.exposition import expose
from controller.metrics.snapshot import Snapshots
from controller.schema import certificates, device_models, devices, executions, rollouts
from controller.services import Services
from controller.setup import initialise

DEVICES, QUICK_DEVICES = 100_000, 2_000
STATES = ("queued", "offered", "soaking", "succeeded")


def metrics_scrape_100k(options: Options) -> Figure:
    """Processor time of one that reads everything anew; the next ones share the reading."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        services = _fleet(Path(folder), int(options.scaled(DEVICES, QUICK_DEVICES)))

        def scrape() -> float:
            started = time.process_time()
            expose(services.metrics, Snapshots(services).read(), "")
            return (time.process_time() - started) * 1000

        found = figure("metrics_scrape_100k", "ms", repeat(scrape, options))
        services.engine.dispose()
        return found


def _fleet(folder: Path, count: int) -> Services:
    path = folder / "controller.toml"
    path.write_text("")
    initialise(load_settings(path))
    services = build_services(load_settings(path))
    enrol_simulated(services, count)
    rollout = {
        "rollout": "r-1", "model": "pump", "release_sequence": 1, "version": "1", "selector": "*",
        "state": "running", "options": {}, "excluded": [], "created_ms": 1, "created_by": "bench",
        "updated_ms": 1,
    }  # fmt: skip
    with writing(services.engine) as connection:
        names = list(connection.scalars(select(devices.c.device)))
        connection.execute(insert(rollouts), rollout)
        own = {"rollout": "r-1", "attempt": 1, "wave": 1, "updated_ms": 1}
        rows = [own | {"device": name, "state": STATES[i % 4]} for i, name in enumerate(names)]
        connection.execute(insert(executions), rows)
        model = {"model": "pump", "active_version": "1", "rows_per_second": 1.0, "drift": 0.1}
        connection.execute(insert(device_models), [model | {"device": name} for name in names])
        issued = {"issued_ms": 1, "not_after_ms": 2**42, "chain": bytes(900)}
        chains = [issued | {"device": name, "serial": f"{i:x}"} for i, name in enumerate(names)]
        connection.execute(insert(certificates), chains)
    return services
