"""The whole fleet at a glance: counters, and every device's status grouped by site, worst first.

One scan serves counters and map for every viewer. It is repeated when it is older than half a
second, and than twenty times what it cost, so that looking takes at most a twentieth of a core.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from controller.database import reading
from controller.fleet import STATUSES
from controller.schema import devices
from controller.selection import effective_status

if TYPE_CHECKING:
    from controller.services import Services

KEEP_SECONDS = 0.5
COST_FACTOR = 20


@dataclass(frozen=True, slots=True)
class SiteView:
    """One site: its devices' names and statuses, by name."""

    site: str
    devices: tuple[tuple[str, str], ...]
    counters: dict[str, int]

    @property
    def trouble(self) -> str:
        """What is wrong here, in words; "" when nothing is."""
        found = [
            f"{self.counters[name]:,} {name}"
            for name in ("failing", "offline", "degraded")
            if self.counters.get(name)
        ]
        return ", ".join(found)


@dataclass(frozen=True, slots=True)
class FleetView:
    """All sites, the worst first."""

    counters: dict[str, int]
    sites: tuple[SiteView, ...]

    @property
    def total(self) -> int:
        """Devices that are not revoked."""
        return sum(self.counters.values())

    def document(self) -> dict[str, Any]:
        """Counters in all and at each site, as `/fleet` gives them."""
        sites = [
            {"site": one.site, "counters": {name: one.counters.get(name, 0) for name in STATUSES}}
            for one in sorted(self.sites, key=lambda one: one.site)
        ]
        return {"counters": self.counters, "total": self.total, "sites": sites}


def view_fleet(rows: list[tuple[str, str, str]]) -> FleetView:
    """Group (site, device, status) rows, which come sorted by site. Pure."""
    sites, whole = [], Counter[str]()
    for site, own in groupby(rows, key=lambda row: row[0]):
        members = tuple((device, _known(status)) for _, device, status in own)
        counted = Counter(status for _, status in members)
        whole += counted
        sites.append(SiteView(site, members, dict(counted)))
    sites.sort(key=_badness)
    return FleetView({name: whole[name] for name in STATUSES}, tuple(sites))


def _badness(one: SiteView) -> tuple[float, ...]:
    """Shares of failing, offline and degraded devices; larger comes first."""
    shares = (one.counters.get(name, 0) for name in ("failing", "offline", "degraded"))
    return tuple(-share / len(one.devices) for share in shares)


def _known(status: str) -> str:
    return status if status in STATUSES else "unknown"


class Overview:
    """Keeps the newest view for all viewers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._view: FleetView | None = None
        self._keep_until = 0.0

    def read(self) -> FleetView:
        """The fleet as it was a moment ago."""
        with self._lock:
            begin = time.monotonic()
            if self._view is None or begin >= self._keep_until:
                self._view = view_fleet(self._scan())
                end = time.monotonic()
                self._keep_until = end + max(KEEP_SECONDS, COST_FACTOR * (end - begin))
            return self._view

    def due_seconds(self) -> float:
        """How long the view will still be kept; 0 when the next read scans again."""
        return max(0.0, self._keep_until - time.monotonic())

    def _scan(self) -> list[tuple[str, str, str]]:
        services = self._services
        status = effective_status(services.now_ms(), services.offline_after_ms)
        query = (
            select(devices.c.site, devices.c.device, status)
            .where(devices.c.revoked_ms.is_(None))
            .order_by(devices.c.site, devices.c.device)
        )
        with reading(services.engine) as connection:
            return [(site, device, name) for site, device, name in connection.execute(query)]
