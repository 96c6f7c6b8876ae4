"""The fleet's figures as the database has them, read at most every few seconds for all scrapes.

Counting is the database's work: no device becomes an object here. A snapshot is kept for at least
`KEEP_SECONDS`, and for so many times what it cost that scrapes take at most a fiftieth of a core;
what changes in days is counted every ten minutes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from sqlalchemy import Connection, Engine, Table, func, select, text

from controller.database import reading
from controller.drift.compare import STRONG
from controller.repository.status import describe_status
from controller.rollouts.states import ACTIVE_ROLLOUT
from controller.schema import (
    alerts,
    certificates,
    device_models,
    devices,
    events,
    executions,
    health,
    predictions,
    rejections,
    rollouts,
    statistics,
    waves,
    windows,
)
from controller.selection import effective_status
from shoal import __version__

if TYPE_CHECKING:
    from controller.services import Services

KEEP_SECONDS = 2.0
COST_FACTOR = 50
ENDING_KEEP_SECONDS = 600.0
ENDING_SOON_MS = 7 * 86_400_000
ROWS_OF: tuple[Table, ...] = (windows, statistics, health, events, predictions)


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model's release on the devices that run it."""

    model: str
    version: str
    devices: int
    rows_per_second: float
    failed_ratio: float
    latency_p95_seconds: float
    drifted: int
    """Devices whose worst feature is beyond `STRONG`: far from training."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the database says, at one moment."""

    fleet: dict[tuple[str, str], int]
    """(site, status) → devices that are not revoked."""
    models: tuple[ModelFigures, ...]
    rollouts: dict[str, int]
    executions: dict[tuple[str, str], int]
    """(model, state) → devices, of rollouts under way."""
    gates: dict[tuple[str, str], int]
    """(gate, verdict) → waves, of rollouts under way."""
    alerts: dict[tuple[str, str], int]
    """(kind, scope) → alerts that have not ended."""
    rows: dict[str, int]
    """Table → rows committed."""
    refused: dict[str, int]
    """Code → messages refused."""
    newest_ms: int
    """When a message was committed last; 0 for never."""
    trust_expires_ms: dict[str, int]
    certificates_ms: dict[str, int]
    """Authority → end of its certificate."""
    certificates_ending: int
    """Devices whose newest certificate ends within a week: they should have renewed it."""
    database_bytes: dict[str, int]
    parts: dict[str, bool]
    build: dict[str, str]
    seconds: float = 0.0
    """What reading it took."""


class Snapshots:
    """Keeps the newest for all scrapes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._kept: Snapshot | None = None
        self._keep_until = 0.0
        self._ending, self._ending_until = 0, 0.0

    def read(self) -> Snapshot:
        """The fleet as it was a moment ago."""
        with self._lock:
            begin = time.monotonic()
            if self._kept is None or begin >= self._keep_until:
                if begin >= self._ending_until:
                    self._ending = count_ending(self._services)
                    self._ending_until = begin + ENDING_KEEP_SECONDS
                self._kept = take_snapshot(self._services, self._ending)
                end = time.monotonic()
                self._keep_until = end + max(KEEP_SECONDS, COST_FACTOR * (end - begin))
            return self._kept


def take_snapshot(services: Services, certificates_ending: int) -> Snapshot:
    """Read everything but what was counted before."""
    began = time.perf_counter()
    with reading(services.engine) as connection:
        trust = describe_status(connection, services.keyring, datetime.now(UTC))
        return Snapshot(
            fleet=_fleet(connection, services),
            models=_models(connection),
            rollouts=_grouped(connection, rollouts.c.state),
            executions=_executions(connection),
            gates=_gates(connection),
            alerts=_alerts(connection),
            rows={table.name: _newest_id(connection, table) for table in ROWS_OF},
            refused=_refused(connection),
            newest_ms=_newest_ms(connection),
            trust_expires_ms={one["role"]: one["expires_ms"] for one in trust["roles"]},
            certificates_ms=_authorities(services),
            certificates_ending=certificates_ending,
            database_bytes=_sizes(services.engine, connection),
            parts={"database": True, **services.parts},
            build={
                "version": __version__,
                "database": services.engine.dialect.name,
                "broker": services.broker.kind if services.broker else "none",
            },
            seconds=time.perf_counter() - began,
        )


def _grouped(connection: Connection, column: Any) -> dict[str, int]:
    query = select(column, func.count()).group_by(column)
    return {str(name): count for name, count in connection.execute(query)}


def _fleet(connection: Connection, services: Services) -> dict[tuple[str, str], int]:
    c, status = devices.c, effective_status(services.now_ms(), services.offline_after_ms)
    query = select(c.site, status.label("now"), func.count()).where(c.revoked_ms.is_(None))
    rows = connection.execute(query.group_by(c.site, "now"))
    return {(site, name): count for site, name, count in rows}


def _models(connection: Connection) -> tuple[ModelFigures, ...]:
    c = device_models.c
    query = (
        select(
            c.model,
            c.active_version,
            func.count(),
            func.sum(c.rows_per_second),
            func.avg(c.failed_ratio),
            func.avg(c.latency_p95_us),
            func.count().filter(c.drift > STRONG),
        )
        .where(c.active_version.is_not(None))
        .group_by(c.model, c.active_version)
    )
    return tuple(
        ModelFigures(model, version, count, rows or 0.0, failed or 0.0, (p95 or 0.0) / 1e6, drifted)
        for model, version, count, rows, failed, p95, drifted in connection.execute(query)
    )


def _under_way() -> Any:
    return select(rollouts.c.rollout).where(rollouts.c.state.in_(sorted(ACTIVE_ROLLOUT)))


def _executions(connection: Connection) -> dict[tuple[str, str], int]:
    e, r = executions.c, rollouts.c
    query = (
        select(r.model, e.state, func.count())
        .join(rollouts, r.rollout == e.rollout)
        .where(e.rollout.in_(_under_way()))
        .group_by(r.model, e.state)
    )
    return {(model, state): count for model, state, count in connection.execute(query)}


def _gates(connection: Connection) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    query = select(waves.c.gates).where(waves.c.rollout.in_(_under_way()))
    for gates in connection.scalars(query):
        for gate in gates:
            key = (str(gate["name"]), str(gate["verdict"]))
            found[key] = found.get(key, 0) + 1
    return found


def _alerts(connection: Connection) -> dict[tuple[str, str], int]:
    c = alerts.c
    query = select(c.kind, c.scope, func.count()).where(c.ended_ms.is_(None))
    rows = connection.execute(query.group_by(c.kind, c.scope))
    return {(kind, scope): count for kind, scope, count in rows}


def _newest_id(connection: Connection, table: Table) -> int:
    """Numbers are given in order and only the oldest rows are deleted, so this counts all."""
    return connection.scalar(select(func.max(table.c.id))) or 0


def _newest_ms(connection: Connection) -> int:
    """When the newest of the two most frequent messages was committed."""
    newest = 0
    for table in (health, windows):
        query = select(table.c.received_ms).order_by(table.c.id.desc()).limit(1)
        newest = max(newest, connection.scalar(query) or 0)
    return newest


def _refused(connection: Connection) -> dict[str, int]:
    c = rejections.c
    query = select(c.code, func.sum(c.count)).group_by(c.code)
    return {code: int(count) for code, count in connection.execute(query)}


def _authorities(services: Services) -> dict[str, int]:
    identities = services.identities
    chains = {"fleet-ca": identities.fleet.chain_pem, "broker-ca": identities.broker.chain_pem}
    return {
        name: min(
            int(one.not_valid_after_utc.timestamp() * 1000)
            for one in x509.load_pem_x509_certificates(chain)
        )
        for name, chain in chains.items()
    }


def count_ending(services: Services) -> int:
    """Devices whose newest certificate ends soon."""
    c, now_ms = certificates.c, services.now_ms()
    newest = (
        select(func.max(c.not_after_ms).label("ends"))
        .where(c.revoked_ms.is_(None))
        .group_by(c.device)
        .subquery()
    )
    soon = newest.c.ends.between(now_ms, now_ms + ENDING_SOON_MS)
    with reading(services.engine) as connection:
        return connection.scalar(select(func.count()).select_from(newest).where(soon)) or 0


def _sizes(engine: Engine, connection: Connection) -> dict[str, int]:
    """Bytes of the database; of SQLite, its log apart."""
    if engine.dialect.name == "postgresql":
        size = connection.scalar(text("SELECT pg_database_size(current_database())"))
        return {"main": int(size or 0)}
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    page = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    log = _log_bytes(engine)
    return {"main": pages * page} | ({"log": log} if log is not None else {})


def _log_bytes(engine: Engine) -> int | None:
    name = engine.url.database
    path = Path(f"{name}-wal") if name else None
    return path.stat().st_size if path is not None and path.exists() else None
