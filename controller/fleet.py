"""Devices as the API shows them: one query a page, current state only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, select

from controller.errors import NotFoundError
from controller.schema import desired, device_models, devices
from controller.selection import Moment, effective_status, matching, read_selection
from shoal.selector import DEVICE_STATES

Document = dict[str, Any]

STATUSES = DEVICE_STATES
_LISTED = (
    "device", "site", "profile", "labels", "status", "reason", "agent_version", "last_seen_ms",
    "enrolled_ms", "revoked_ms", "clock_synced",
)  # fmt: skip


def counters(connection: Connection, now_ms: int, offline_after_ms: int) -> Document:
    """How many devices have each status, in all and at each site."""
    status = effective_status(now_ms, offline_after_ms)
    query = (
        select(devices.c.site, status, func.count())
        .where(devices.c.revoked_ms.is_(None))
        .group_by(devices.c.site, status)
        .order_by(devices.c.site)
    )
    sites: dict[str, dict[str, int]] = {}
    whole = dict.fromkeys(STATUSES, 0)
    for site, name, count in connection.execute(query):
        key = name if name in whole else "unknown"
        sites.setdefault(site, dict.fromkeys(STATUSES, 0))[key] += count
        whole[key] += count
    return {
        "counters": whole,
        "total": sum(whole.values()),
        "sites": [{"site": site, "counters": found} for site, found in sites.items()],
    }


def list_devices(
    connection: Connection,
    now_ms: int,
    offline_after_ms: int,
    *,
    filters: dict[str, str | None],
    limit: int,
    after: str | None = None,
) -> tuple[list[Document], str | None]:
    """A page of devices by name, and the cursor of the next page.

    `filters`: site, status, model, version (of that model), q (a selector, or parts of the name).
    """
    status = effective_status(now_ms, offline_after_ms)
    query = select(*_columns(status)).order_by(devices.c.device).limit(limit + 1)
    query = _filtered(query.where(devices.c.revoked_ms.is_(None)), status, filters)
    if text := (filters.get("q") or "").strip():
        selection = read_selection(connection, text, bare_words=True)
        query = query.where(matching(selection, Moment(now_ms, offline_after_ms)))
    if after:
        query = query.where(devices.c.device > after)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    page = rows[:limit]
    models = _models(connection, [row["device"] for row in page])
    for row in page:
        _finish(row, models)
    return page, page[-1]["device"] if len(rows) > limit else None


def get_device(connection: Connection, device: str, now_ms: int, offline_after_ms: int) -> Document:
    """Everything current of one device, or `NotFoundError`."""
    status = effective_status(now_ms, offline_after_ms)
    query = select(*_columns(status), devices.c.facts, devices.c.health, devices.c.boot_id)
    row = connection.execute(query.where(devices.c.device == device)).mappings().first()
    if row is None:
        raise NotFoundError(f"device {device[:80]!r}: not enrolled")
    document = dict(row)
    _finish(document, _models(connection, [device]))
    document["desired"] = _desired(connection, device)
    return document


def _columns(status: ColumnElement[str]) -> list[ColumnElement[Any]]:
    plain = [devices.c[name] for name in _LISTED if name != "status"]
    return [*plain, status.label("status")]


def _filtered(
    query: Select[Any], status: ColumnElement[str], filters: dict[str, str | None]
) -> Select[Any]:
    if site := filters.get("site"):
        query = query.where(devices.c.site == site)
    if wanted := filters.get("status"):
        query = query.where(status == wanted)
    model, version = filters.get("model"), filters.get("version")
    if model or version:
        m = device_models.c
        found = [m.device == devices.c.device]
        found += [m.model == model] if model else []
        found += [m.active_version == version] if version else []
        query = query.where(exists().where(and_(*found)))
    return query


def _models(connection: Connection, names: list[str]) -> dict[str, list[Document]]:
    query = select(device_models).where(device_models.c.device.in_(names))
    found: dict[str, list[Document]] = {}
    for row in connection.execute(query.order_by(device_models.c.model)).mappings():
        one = dict(row)
        found.setdefault(one.pop("device"), []).append(one)
    return found


def _finish(row: Document, models: dict[str, list[Document]]) -> None:
    row["online"] = row["status"] not in ("offline", "unknown")
    row["models"] = models.get(row["device"], [])


def _desired(connection: Connection, device: str) -> Document | None:
    query = select(
        desired.c.sequence, desired.c.published_sequence, devices.c.reported_desired_sequence
    ).join(devices, devices.c.device == desired.c.device)
    row = connection.execute(query.where(desired.c.device == device)).first()
    if row is None:
        return None
    return {
        "sequence": row.sequence,
        "published_sequence": row.published_sequence,
        "accepted_sequence": row.reported_desired_sequence,
    }
