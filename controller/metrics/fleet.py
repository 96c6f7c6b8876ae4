"""A snapshot as metrics. Pure, and bounded: beyond the largest, sites, models and versions are
"other".

>>> keep_largest({"a": 3, "b": 1, "c": 2}, 2)
{'a': 'a', 'b': 'other', 'c': 'c'}
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controller.fleet import STATUSES
from controller.metrics.snapshot import ModelFigures, Snapshot
from controller.rollouts.states import ExecutionState, RolloutState

OTHER = "other"
MOST_SITES, MOST_MODELS, MOST_VERSIONS, MOST_GATES, MOST_CODES = 50, 30, 10, 40, 40
UNKNOWN = "unknown"


class FleetCollector(Collector):
    """Yields a snapshot's metrics to a registry."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All families."""
        one = self._snapshot
        yield from _fleet(one)
        yield from _models(one.models)
        yield from _rollouts(one)
        yield from _ingest(one)
        yield from _ends(one)
        yield from _controller(one)


def keep_largest(sizes: Mapping[str, int], most: int) -> dict[str, str]:
    """Each name to the label value it has: itself, or "other" beyond the `most` largest."""
    kept = sorted(sizes, key=lambda name: (-sizes[name], name))[:most]
    return {name: name if name in kept else OTHER for name in sizes}


def _gauge(name: str, says: str, labels: tuple[str, ...], rows: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(name, says, labels=labels)
    for values, number in rows.items():
        family.add_metric(values, number)
    return family


def _fleet(one: Snapshot) -> Iterator[Metric]:
    counted = {(status,): 0 for status in STATUSES}
    sites: Counter[str] = Counter()
    for (site, status), count in one.fleet.items():
        counted[(_known(status),)] += count
        sites[site] += count
    yield _gauge("shoal_devices", "Devices, by what their status is now.", ("status",), counted)
    names = keep_largest(sites, MOST_SITES)
    rows = {(name, status): 0 for name in names.values() for status in STATUSES}
    for (site, status), count in one.fleet.items():
        rows[names[site], _known(status)] += count
    says = f"Devices of the {MOST_SITES} largest sites; of all others together as other."
    yield _gauge("shoal_site_devices", says, ("site", "status"), rows)


def _known(status: str) -> str:
    return status if status in STATUSES else UNKNOWN


def _models(figures: tuple[ModelFigures, ...]) -> Iterator[Metric]:
    sizes: Counter[str] = Counter()
    for one in figures:
        sizes[one.model] += one.devices
    names = keep_largest(sizes, MOST_MODELS)
    running: Counter[tuple[str, ...]] = Counter()
    drifted: Counter[str] = Counter()
    rows, failed, latency = (defaultdict[str, float](float) for _ in range(3))
    for model in sizes:
        own = {one.version: one.devices for one in figures if one.model == model}
        versions = keep_largest(own, MOST_VERSIONS)
        for version, count in own.items():
            running[names[model], versions[version]] += count
    for one in figures:
        name = names[one.model]
        rows[name] += one.rows_per_second
        failed[name] += one.failed_ratio * one.devices
        latency[name] += one.latency_p95_seconds * one.devices
        drifted[name] += one.drifted
    total: Counter[str] = Counter()
    for model, size in sizes.items():
        total[names[model]] += size
    label = ("model",)
    says = "Devices that run a release; models and versions beyond the largest are other."
    yield _gauge("shoal_devices_running", says, ("model", "version"), running)
    says = "Rows that the fleet's models answer a second."
    yield _gauge("shoal_model_rows_per_second", says, label, {(k,): v for k, v in rows.items()})
    says = "Share of rows without a usable answer, mean over devices."
    shares = {(name,): failed[name] / total[name] for name in total}
    yield _gauge("shoal_model_failed_ratio", says, label, shares)
    says = "95th percentile of the latency, mean over devices."
    means = {(name,): latency[name] / total[name] for name in total}
    yield _gauge("shoal_model_latency_p95_seconds", says, label, means)
    says = "Devices whose worst feature lies far from the baseline (PSI above 0.25)."
    yield _gauge("shoal_model_drifted_devices", says, label, {(k,): v for k, v in drifted.items()})


def _rollouts(one: Snapshot) -> Iterator[Metric]:
    counted = {(state.value,): one.rollouts.get(state.value, 0) for state in RolloutState}
    yield _gauge("shoal_rollouts", "Rollouts, by state.", ("state",), counted)
    sizes: Counter[str] = Counter()
    for (model, _), count in one.executions.items():
        sizes[model] += count
    names = keep_largest(sizes, MOST_MODELS)
    rows: Counter[tuple[str, ...]] = Counter()
    for model, name in names.items():
        for state in ExecutionState:
            rows[name, state.value] += one.executions.get((model, state.value), 0)
    says = "Devices in rollouts under way, by state of their execution."
    yield _gauge("shoal_executions", says, ("model", "state"), rows)
    gates = keep_largest({gate: count for (gate, _), count in one.gates.items()}, MOST_GATES)
    verdicts: Counter[tuple[str, ...]] = Counter()
    for (gate, verdict), count in one.gates.items():
        verdicts[gates[gate], verdict] += count
    says = "Waves of rollouts under way, by what a gate says of them."
    yield _gauge("shoal_gate_verdicts", says, ("gate", "verdict"), verdicts)
    says = "Drift alerts that have not ended."
    yield _gauge("shoal_alerts_open", says, ("kind", "scope"), one.alerts)


def _ingest(one: Snapshot) -> Iterator[Metric]:
    rows = CounterMetricFamily(
        "shoal_ingest_rows", "Rows of telemetry committed, by table.", labels=("table",)
    )
    for table, count in one.rows.items():
        rows.add_metric((table,), count)
    yield rows
    refused = CounterMetricFamily(
        "shoal_ingest_refused", "Messages of devices refused, by reason.", labels=("code",)
    )
    names = keep_largest(one.refused, MOST_CODES)
    counted: Counter[str] = Counter()
    for code, count in one.refused.items():
        counted[names[code]] += count
    for code, count in counted.items():
        refused.add_metric((code,), count)
    yield refused
    says = "When a message was committed last; 0 for never."
    yield _gauge("shoal_ingest_newest_timestamp_seconds", says, (), {(): one.newest_ms / 1000})


def _ends(one: Snapshot) -> Iterator[Metric]:
    says = "When a role of the release repository ends; of targets, its first bin."
    ends = {(role,): ms / 1000 for role, ms in one.trust_expires_ms.items()}
    yield _gauge("shoal_trust_expiry_timestamp_seconds", says, ("role",), ends)
    says = "When a certificate authority of the controller ends."
    ends = {(name,): ms / 1000 for name, ms in one.certificates_ms.items()}
    yield _gauge("shoal_certificate_expiry_timestamp_seconds", says, ("certificate",), ends)
    says = "Devices whose newest certificate ends within seven days."
    ending = {(): float(one.certificates_ending)}
    yield _gauge("shoal_device_certificates_ending_soon", says, (), ending)


def _controller(one: Snapshot) -> Iterator[Metric]:
    parts = {(name,): float(up) for name, up in one.parts.items()}
    yield _gauge("shoal_part_up", "Whether a part of the controller runs.", ("part",), parts)
    sizes = {(name,): float(size) for name, size in one.database_bytes.items()}
    yield _gauge("shoal_database_size_bytes", "Size of the database.", ("file",), sizes)
    says = "What reading this snapshot of the database took."
    yield _gauge("shoal_snapshot_seconds", says, (), {(): one.seconds})
    labels = tuple(one.build)
    build = {tuple(one.build.values()): 1.0}
    yield _gauge("shoal_build_info", "Which controller this is.", labels, build)
