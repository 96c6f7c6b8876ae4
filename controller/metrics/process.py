"""What one process of the controller counts itself.

Several processes behind one port share their counters in the folder that `PROMETHEUS_MULTIPROC_DIR`
names (prometheus-client's multi-process mode); processes with ports of their own are scraped each.

>>> one = ProcessMetrics()
>>> one.observe_request("GET", "/api/v1/devices/{device}", 200, 0.012)
>>> one.registry.get_sample_value(
...     "shoal_http_requests_total",
...     {"method": "GET", "route": "/api/v1/devices/{device}", "status": "2xx"},
... )
1.0
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.multiprocess import MultiProcessCollector

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
TICK_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"
_KINDS = {"api": "api", "static": "files", "repository": "files", "docs": "docs"}


class ProcessMetrics:
    """Counters of this process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._requests = Counter(
            "shoal_http_requests",
            "Answers, by route and class of status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "shoal_http_request_seconds",
            "From a request to the beginning of its answer.",
            ("kind",),
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.tick_seconds = Histogram(
            "shoal_engine_tick_seconds",
            "One round of the rollout engine.",
            buckets=TICK_BUCKETS,
            registry=self.registry,
        )
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, f"{status // 100}xx").inc()
        self._seconds.labels(kind_of(route)).observe(seconds)

    def exposed(self) -> CollectorRegistry:
        """What a scrape of this process shows: its own registry, or what all of them share."""
        if not os.environ.get(SHARED_FOLDER):
            return self.registry
        registry = CollectorRegistry(auto_describe=True)
        if Path(os.environ[SHARED_FOLDER]).is_dir():
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # theirs is untyped
        return registry


def kind_of(route: str) -> str:
    """Which kind of thing a route serves.

    >>> kind_of("/api/v1/fleet"), kind_of("/devices/{device}"), kind_of("unmatched")
    ('api', 'page', 'unmatched')
    """
    if route == UNMATCHED:
        return UNMATCHED
    return _KINDS.get(route.strip("/").partition("/")[0], "page")
