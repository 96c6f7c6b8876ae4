"""Writing a folded batch: telemetry, current state and ranges in one transaction."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from controller import schema
from controller.ingest.fold import Batch, Boot
from controller.ingest.ranges import Ranges
from shoal.protocol.messages import State

CLOCK_SLACK_MS = 86_400_000
"""A device's clock that is further ahead of ours is not believed."""


def write_batch(
    connection: Connection, batch: Batch, ranges: dict[Boot, Ranges], now_ms: int
) -> None:
    """Write everything; the caller's transaction makes it one step."""
    tables = {
        schema.windows: batch.windows,
        schema.statistics: batch.statistics,
        schema.health: batch.health,
        schema.predictions: batch.predictions,
        schema.events: batch.events,
    }
    for table, rows in tables.items():
        if rows:
            connection.execute(insert(table), rows)
    for table, rows in ((schema.replies, batch.replies), (schema.captures, batch.captures)):
        if rows:  # a device may answer a command again: what is there already counts
            make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            connection.execute(make(table).on_conflict_do_nothing(), rows)
    _touch(connection, batch, now_ms)
    _write_ranges(connection, batch, ranges, now_ms)
    for state in batch.states:
        apply_state(connection, state, now_ms)
    _write_rejections(connection, batch, now_ms)


def apply_state(connection: Connection, state: State, now_ms: int) -> None:
    """Make `state` the device's current one, unless a newer one is known."""
    devices = schema.devices
    known = connection.execute(
        select(devices.c.boot_id, devices.c.state_ms, devices.c.state_seq).where(
            devices.c.device == state.device
        )
    ).one()
    same_boot = known.boot_id == state.boot_id
    here = devices.c.device == state.device
    if not state.online:
        if same_boot:
            connection.execute(update(devices).where(here).values(online=False))
        return
    believable = state.clock_synced and state.ts_ms <= now_ms + CLOCK_SLACK_MS
    state_ms = state.ts_ms if believable else 0
    if same_boot:
        newer = state.seq > known.state_seq
    elif state_ms and known.state_ms:
        newer = state_ms >= known.state_ms
    else:  # without a clock, the boot that we have heard of last
        newer = _first_ms(connection, state.device, state.boot_id) >= _first_ms(
            connection, state.device, known.boot_id
        )
    if not newer:
        return
    connection.execute(
        update(devices)
        .where(here)
        .values(
            online=True,
            status=state.status,
            reason=state.reason,
            boot_id=state.boot_id,
            state_ms=state_ms,
            state_seq=state.seq,
            agent_version=state.agent_version,
            profile=state.profile,
            facts=state.facts,
            reported_desired_sequence=state.desired_sequence,
        )
    )
    for model in state.models:
        key = {"device": state.device, "model": model.model}
        values = {name: getattr(model, name) for name in model.__struct_fields__ if name != "model"}
        upsert(connection, schema.device_models, key, {**values, "updated_ms": state.ts_ms})
    names = [model.model for model in state.models]
    table = schema.device_models
    connection.execute(
        delete(table).where(table.c.device == state.device, table.c.model.not_in(names))
    )


def _first_ms(connection: Connection, device: str, boot_id: str) -> int:
    """When we first heard of a boot, by our own clock; 0 of none."""
    c = schema.device_boots.c
    return (
        connection.scalar(select(c.first_ms).where(c.device == device, c.boot_id == boot_id)) or 0
    )


def upsert(connection: Connection, table: Any, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Insert a row, or change the one with this key."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(table).values(**key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))


def upsert_all(
    connection: Connection,
    table: Any,
    rows: list[dict[str, Any]],
    key: tuple[str, ...],
    changed: tuple[str, ...],
) -> None:
    """Insert rows of the same columns; of those whose key is there, change only `changed`."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(table)
    values = {name: statement.excluded[name] for name in changed}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values), rows)


def _touch(connection: Connection, batch: Batch, now_ms: int) -> None:
    """Who was heard of, and the newest health; one UPDATE a device."""
    devices = schema.devices
    if batch.seen:
        connection.execute(
            update(devices)
            .where(devices.c.device == bindparam("b_device"))
            .values(last_seen_ms=now_ms, clock_synced=bindparam("b_synced")),
            [{"b_device": name, "b_synced": synced} for name, synced in batch.seen.items()],
        )
    if batch.newest_health:
        connection.execute(
            update(devices)
            .where(devices.c.device == bindparam("b_device"))
            .values(health=bindparam("b_health", type_=devices.c.health.type)),
            [{"b_device": name, "b_health": h} for name, h in batch.newest_health.items()],
        )


def _write_ranges(
    connection: Connection, batch: Batch, ranges: dict[Boot, Ranges], now_ms: int
) -> None:
    if not batch.boots:
        return
    rows = [
        {
            "device": device,
            "boot_id": boot_id,
            "ranges": ranges[device, boot_id],
            "first_ms": now_ms,
            "last_ms": now_ms,
        }
        for device, boot_id in sorted(batch.boots)
    ]
    connection.execute(_ranges_statement(connection.dialect.name), rows)


@cache
def _ranges_statement(dialect: str) -> Any:
    """Made once a dialect: making it costs more than a row does."""
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(schema.device_boots)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["device", "boot_id"], set_={"ranges": new.ranges, "last_ms": new.last_ms}
    )


def _write_rejections(connection: Connection, batch: Batch, now_ms: int) -> None:
    table = schema.rejections
    for (device, channel, code), (count, sentence) in batch.rejections.items():
        key = {"device": device, "channel": channel, "code": code}
        make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(
            make(table)
            .values(**key, count=count, first_ms=now_ms, last_ms=now_ms, example=sentence)
            .on_conflict_do_update(
                index_elements=list(key),
                set_={"count": table.c.count + count, "last_ms": now_ms, "example": sentence},
            )
        )
