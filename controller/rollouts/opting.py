"""Devices and sites that take no part in rollouts, until somebody takes them in again.

They are left out when a rollout is planned, with the reason; what they were waiting for is
cancelled. What they run is not touched, and a way back reaches them as everybody.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, delete, select, update

from controller import audit
from controller.database import writing
from controller.errors import NotFoundError
from controller.ingest.write import upsert
from controller.rollouts.states import WORKED_ON, ExecutionState
from controller.schema import devices, executions, opt_outs, rollouts
from controller.services import Services
from shoal.errors import InvalidInputError
from shoal.selector import Subject

Document = dict[str, Any]
SCOPES = ("device", "site")


def opt_out(services: Services, scope: str, subject: str, reason: str, actor: str) -> Document:
    """Leave a device, or all of a site, out of rollouts."""
    column = _column(scope)
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        if connection.scalar(select(devices.c.device).where(column == subject).limit(1)) is None:
            raise NotFoundError(f"{scope} {subject[:80]!r}: no such {scope}")
        key = {"scope": scope, "subject": subject}
        row = {"reason": reason, "by": actor, "at_ms": now_ms}
        upsert(connection, opt_outs, key, row)
        _cancel_waiting(connection, column == subject, f"opted out by {actor}", now_ms)
        audit.record(connection, now_ms, actor, f"{scope}.opt-out", subject, {"reason": reason})
        return key | row


def opt_in(services: Services, scope: str, subject: str, actor: str) -> Document:
    """Take it in again; rollouts that are under way go on without it."""
    _column(scope)
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        c = opt_outs.c
        here = and_(c.scope == scope, c.subject == subject)
        if not connection.execute(delete(opt_outs).where(here)).rowcount:
            raise NotFoundError(f"{scope} {subject[:80]!r}: is not opted out")
        audit.record(connection, now_ms, actor, f"{scope}.opt-in", subject)
        return {"scope": scope, "subject": subject}


def list_opt_outs(connection: Connection) -> list[Document]:
    """Who takes no part, and why."""
    query = select(opt_outs).order_by(opt_outs.c.scope, opt_outs.c.subject)
    return [dict(row) for row in connection.execute(query).mappings()]


def words_for(found: list[Document], one: Subject) -> str:
    """Why a device takes no part; "" where it does."""
    for row in found:
        own = one.device if row["scope"] == "device" else one.site
        if row["subject"] == own:
            whole = "" if row["scope"] == "device" else f"site {own} "
            because = f": {row['reason']}" if row["reason"] else ""
            return f"{whole}opted out of rollouts by {row['by']}{because}"
    return ""


def _column(scope: str) -> Any:
    if scope not in SCOPES:
        raise InvalidInputError(f"scope {scope[:40]!r}: expected {' or '.join(SCOPES)}")
    return devices.c[scope]


def _cancel_waiting(connection: Connection, meant: Any, words: str, now_ms: int) -> None:
    """Only first attempts: who has tried the release before is the rollout's to take back."""
    names = select(devices.c.device).where(meant)
    active = select(rollouts.c.rollout).where(rollouts.c.state.in_(WORKED_ON))
    c = executions.c
    here = and_(
        c.rollout.in_(active),
        c.device.in_(names),
        c.state == ExecutionState.QUEUED,
        c.attempt == 1,
    )
    values = {"state": ExecutionState.CANCELLED, "code": "opted-out", "sentence": words}
    connection.execute(update(executions).where(here).values(**values, updated_ms=now_ms))
