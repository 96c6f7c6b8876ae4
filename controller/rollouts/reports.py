"""What devices say of their executions: events, applied in order, each once.

A tick reads the events that came since the last one. Reports come at least once and may come late:
only steps forward count, only of the newest attempt; `states.follows` says which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, func, select, update

from controller.ingest.write import upsert
from controller.rollouts.states import ExecutionState, follows
from controller.schema import events, executions, settings

WATERMARK = "rollout-events"
EVENTS_A_TICK = 5000
ASKED_AT_ONCE = 500
_REPORTED = {state.value: state for state in ExecutionState}
_Key = tuple[str, str]
"""(rollout, device)"""
_CHANGED = ("state", "code", "sentence", "reported_success", "updated_ms")
_Item = TypeVar("_Item")


def has_reports(connection: Connection) -> bool:
    """Whether events came that are not applied yet."""
    return (connection.scalar(select(func.max(events.c.id))) or 0) > _watermark(connection)


def apply_reports(connection: Connection, now_ms: int) -> int:
    """Take executions on by the events that came since the last time; return how many."""
    query = select(events).where(events.c.id > _watermark(connection)).order_by(events.c.id)
    rows = connection.execute(query.limit(EVENTS_A_TICK)).all()
    told = [row for row in rows if row.kind == "execution" and row.rollout]
    known = _newest(connection, {(row.rollout, row.device) for row in told})
    changed: dict[_Key, dict[str, Any]] = {}
    for row in told:
        key = (row.rollout, row.device)
        execution = known.get(key)
        if execution is None or execution["attempt"] != (row.attempt or 0):
            continue
        values = _after(ExecutionState(execution["state"]), row, now_ms)
        if values:
            execution |= values
            changed[key] = execution
    _write(connection, changed)
    if rows:
        upsert(connection, settings, {"key": WATERMARK}, {"value": rows[-1].id})
    return len(rows)


def _watermark(connection: Connection) -> int:
    return connection.scalar(select(settings.c.value).where(settings.c.key == WATERMARK)) or 0


def _newest(connection: Connection, keys: set[_Key]) -> dict[_Key, dict[str, Any]]:
    """The newest attempt of each device that is spoken of."""
    by_rollout: defaultdict[str, list[str]] = defaultdict(list)
    for rollout, device in sorted(keys):
        by_rollout[rollout].append(device)
    c = executions.c
    found: dict[_Key, dict[str, Any]] = {}
    for rollout, names in by_rollout.items():
        for some in in_parts(names):
            query = select(c.device, c.attempt, *(c[name] for name in _CHANGED)).where(
                c.rollout == rollout, c.device.in_(some)
            )
            for row in connection.execute(query.order_by(c.attempt)).mappings():
                found[rollout, row["device"]] = dict(row)
    return found


def in_parts(items: Iterable[_Item], size: int = ASKED_AT_ONCE) -> Iterator[list[_Item]]:
    """Lists of at most `size`, as a database takes them at once.

    >>> list(in_parts("abc", 2))
    [['a', 'b'], ['c']]
    """
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def _after(before: ExecutionState, event: Any, now_ms: int) -> dict[str, Any]:
    """What an event changes of an execution; nothing where it is old news, or no sense."""
    reported = _REPORTED.get(str(event.data.get("state")))
    if reported is None:
        return {}
    words = {"code": event.code[:80], "sentence": event.sentence}
    if event.data.get("intent") == "rollback":
        bad = reported in (ExecutionState.FAILED, ExecutionState.REJECTED)
        if before is ExecutionState.ROLLING_BACK and bad:
            return {"state": ExecutionState.FAILED, **words, "updated_ms": now_ms}
        return {}
    if not follows(before, reported):
        return {}
    if reported is not ExecutionState.SUCCEEDED:
        return {"state": reported, **words, "updated_ms": now_ms}
    said = {"reported_success": True, "sentence": event.sentence}  # believed by the digest
    if before is ExecutionState.OFFERED:
        said |= {"state": ExecutionState.SOAKING, "updated_ms": now_ms}
    return said


def _write(connection: Connection, changed: dict[_Key, dict[str, Any]]) -> None:
    if not changed:
        return
    c = executions.c
    here = (
        (c.rollout == bindparam("b_rollout"))
        & (c.device == bindparam("b_device"))
        & (c.attempt == bindparam("b_attempt"))
    )
    connection.execute(
        update(executions).where(here),
        [
            {
                "b_rollout": rollout,
                "b_device": device,
                "b_attempt": row["attempt"],
                **{name: row[name] for name in _CHANGED},
            }
            for (rollout, device), row in changed.items()
        ],
    )
