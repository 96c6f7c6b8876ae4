"""The page of metrics, from a scrape of a controller that has a little of everything."""

from __future__ import annotations

from controller.metrics.fleet import FleetCollector
from controller.metrics.process import ProcessMetrics
from controller.metrics.snapshot import ModelFigures, Snapshot

HEAD = """# Metrics

What `GET /metrics` tells; [how to use it](../how-to/grafana.md). Made by `scripts/reference`.

| metric | type | labels | |
|---|---|---|---|
"""
TAIL = """
Besides, of each process: `process_*` (memory, processor, files), `python_info` and `python_gc_*`.
"""
_ONE = Snapshot(
    fleet={("site", "ok"): 1},
    models=(ModelFigures("model", "1", 1, 1.0, 0.0, 0.0, 0),),
    rollouts={},
    executions={("model", "queued"): 1},
    gates={("gate", "pass"): 1},
    alerts={("mean", "device"): 1},
    rows={"windows": 1},
    refused={"invalid-message": 1},
    newest_ms=1,
    trust_expires_ms={"root": 1},
    certificates_ms={"fleet-ca": 1},
    certificates_ending=0,
    database_bytes={"main": 1},
    parts={"database": True},
    build={"version": "", "database": "", "broker": ""},
)


def metrics_page() -> str:
    """The whole page."""
    own = ProcessMetrics()
    own.observe_request("GET", "/", 200, 0.0)
    families = [*FleetCollector(_ONE).collect(), *own.registry.collect()]
    rows = []
    for family in families:
        if not family.name.startswith("shoal_"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({key for one in family.samples for key in one.labels} - {"le"})
        words = ", ".join(f"`{one}`" for one in labels)
        rows.append(f"| `{name}` | {family.type} | {words} | {family.documentation} |")
    return HEAD + "\n".join(sorted(rows)) + "\n" + TAIL
