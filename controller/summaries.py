"""Keeps `device_models` summaries fresh: latency, failures, rate, anomalies, drift.

Looks only at models with new windows since the time before, so the cost follows the traffic and
not the size of the fleet.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, desc, func, select, update

from controller.artifacts import Artifacts
from controller.database import reading, writing
from controller.drift import device_drift, worst_field
from controller.schema import device_models, windows
from shoal.errors import ShoalError
from shoal.latency import add_histograms, latency_quantile

RECENT_WINDOWS = 12
Key = tuple[str, str]


class Summaries:
    """Remembers how far it has read."""

    def __init__(self, engine: Engine, artifacts: Artifacts) -> None:
        self._engine = engine
        self._artifacts = artifacts
        self._last_id: int | None = None

    def refresh(self, most: int = 500) -> int:
        """Bring up to `most` models up to date; return how many there were."""
        with reading(self._engine) as connection:
            keys, last = self._news(connection, most)
            found = [(key, self._summary(connection, *key)) for key in keys]
        if found:
            with writing(self._engine) as connection:
                for (device, model), values in found:
                    c = device_models.c
                    here = (c.device == device) & (c.model == model)
                    connection.execute(update(device_models).where(here).values(**values))
        self._last_id = last
        return len(found)

    def _news(self, connection: Connection, most: int) -> tuple[list[Key], int]:
        newest = connection.scalar(select(func.max(windows.c.id))) or 0
        if self._last_id is None:
            query = select(device_models.c.device, device_models.c.model)
            return [(row.device, row.model) for row in connection.execute(query)], newest
        query = (
            select(windows.c.device, windows.c.model, func.max(windows.c.id).label("last"))
            .where(windows.c.id > self._last_id)
            .group_by(windows.c.device, windows.c.model)
            .order_by("last")
            .limit(most)
        )
        rows = connection.execute(query).all()
        last = rows[-1].last if len(rows) == most else newest
        return [(row.device, row.model) for row in rows], last

    def _summary(self, connection: Connection, device: str, model: str) -> dict[str, Any]:
        c = windows.c
        query = (
            select(windows)
            .where(c.device == device, c.model == model)
            .order_by(desc(c.end_ms), desc(c.id))
            .limit(RECENT_WINDOWS)
        )
        rows = connection.execute(query).all()
        if not rows:
            return {"rows_per_second": None}
        own = [row for row in rows if row.release_sequence == rows[0].release_sequence]
        drift, feature = self._drift(connection, device, model)
        return summarise(own) | {"drift": drift, "drift_feature": feature}

    def _drift(
        self, connection: Connection, device: str, model: str
    ) -> tuple[float | None, str | None]:
        try:
            return worst_field(device_drift(connection, self._artifacts, device, model))
        except ShoalError:
            return None, None


def summarise(rows: list[Any]) -> dict[str, Any]:
    """Numbers of a few windows of one release together. Pure."""
    answered = sum(row.ok for row in rows)
    failed = sum(sum(row.failed.values()) for row in rows)
    seconds = (max(row.end_ms for row in rows) - min(row.start_ms for row in rows)) / 1000
    labels: dict[str, int] = {}
    for row in rows:
        for label, count in row.labels.items():
            labels[label] = labels.get(label, 0) + count
    given = sum(labels.values())
    counts = add_histograms([row.latency_counts for row in rows])
    return {
        "latency_p95_us": latency_quantile(counts, 0.95) or None,
        "failed_ratio": failed / (answered + failed) if answered + failed else None,
        "rows_per_second": sum(row.in_count for row in rows) / seconds if seconds > 0 else None,
        "anomaly_ratio": labels.get("anomaly", 0) / given if given else None,
    }
