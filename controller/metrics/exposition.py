"""A scrape: what this process counted and what the database says, in the form that is asked for."""

from __future__ import annotations

from itertools import chain

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from controller.metrics.fleet import FleetCollector
from controller.metrics.process import ProcessMetrics
from controller.metrics.snapshot import Snapshot


class _Both(CollectorRegistry):
    """Two sources as one registry."""

    def __init__(self, process: CollectorRegistry, snapshot: Snapshot) -> None:
        super().__init__()
        self._process, self._fleet = process, FleetCollector(snapshot)

    def collect(self):  # type: ignore[no-untyped-def] # theirs says Iterable of a private name
        return chain(self._process.collect(), self._fleet.collect())


def expose(process: ProcessMetrics, snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Text and its media type: OpenMetrics where the scraper takes it, else Prometheus' own."""
    encoder, media_type = choose_encoder(accept)
    return encoder(_Both(process.exposed(), snapshot)), media_type
