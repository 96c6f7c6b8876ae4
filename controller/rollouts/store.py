"""Reading a rollout as the planner sees it, and writing what the planner wants done.

Every function works inside the caller's transaction, so a tick is one step: what was planned is
recorded together with the assignments that carry it out.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from controller.director import mark_dirty
from controller.errors import NotFoundError
from controller.ingest.write import upsert
from controller.rollouts.states import (
    ACTIVE_ROLLOUT,
    FINAL_ROLLOUT,
    NOT_BEGUN,
    UNDER_WAY,
    WORKED_ON,
    ExecutionState,
    RolloutState,
    WaveState,
    follows,
)
from controller.rollouts.values import (
    Action,
    Approval,
    ExecutionView,
    Offer,
    Options,
    RecordApproval,
    Requeue,
    RolloutView,
    SetExecution,
    SetRollout,
    SetWave,
    TakeBack,
    WaveView,
)
from controller.schema import (
    approvals,
    assignments,
    device_models,
    devices,
    events,
    executions,
    releases,
    rollouts,
    settings,
    waves,
)
from shoal.protocol.manifest import Probation

WATERMARK = "rollout-events"
EVENTS_A_TICK = 2000
_REPORTED = {state.value: state for state in ExecutionState}


def active_rollouts(connection: Connection) -> list[str]:
    """Names of the rollouts that the engine works on."""
    query = select(rollouts.c.rollout).where(rollouts.c.state.in_(WORKED_ON))
    return list(connection.scalars(query.order_by(rollouts.c.created_ms)))


def trailing_rollouts(connection: Connection) -> list[str]:
    """Names of the rollouts that are over while a device of theirs is not."""
    c = executions.c
    late = and_(c.state == ExecutionState.TIMED_OUT, c.reported_success.is_(True))
    query = (
        select(c.rollout)
        .join(rollouts, rollouts.c.rollout == c.rollout)
        .where(
            rollouts.c.state.in_((RolloutState.SUCCEEDED, RolloutState.ABORTED)),
            or_(c.state.in_({ExecutionState.OFFERED, *UNDER_WAY}), late),
        )
    )
    return sorted(set(connection.scalars(query)))


def contradicted_rollouts(connection: Connection) -> list[str]:
    """Names of the rollouts that are over and of which a device runs something else by now.

    Or runs it again. Where another rollout has moved the device since, that is no news.
    """
    e, a, m, r = executions.c, assignments.c, device_models.c, releases.c
    left = and_(
        e.state == ExecutionState.SUCCEEDED, m.active_manifest.is_distinct_from(r.manifest_sha256)
    )
    back = and_(e.state == ExecutionState.REVERTED, m.active_manifest == r.manifest_sha256)
    ours = and_(e.rollout == a.rollout, e.device == a.device, e.attempt == a.attempt)
    query = (
        select(a.rollout)
        .join(executions, ours)
        .join(rollouts, rollouts.c.rollout == a.rollout)
        .join(device_models, and_(m.device == a.device, m.model == a.model))
        .join(releases, and_(r.model == a.model, r.sequence == a.release_sequence))
        .where(
            a.intent == "update",
            rollouts.c.state.in_((RolloutState.SUCCEEDED, RolloutState.ABORTED)),
            or_(left, back),
        )
    )
    return sorted(set(connection.scalars(query)))


def read_view(connection: Connection, rollout: str) -> RolloutView:
    """Everything the planner needs, but the gates."""
    row = connection.execute(select(rollouts).where(rollouts.c.rollout == rollout)).first()
    if row is None:
        raise NotFoundError(f"rollout {rollout[:80]!r}: no such rollout")
    release = connection.execute(
        select(releases.c.manifest_sha256, releases.c.manifest).where(
            releases.c.model == row.model, releases.c.sequence == row.release_sequence
        )
    ).one()
    options = msgspec.convert(row.options, Options)
    probation = msgspec.convert(release.manifest.get("probation", {}), Probation)
    query = select(waves).where(waves.c.rollout == rollout).order_by(waves.c.number)
    return RolloutView(
        rollout=rollout,
        model=row.model,
        version=row.version,
        release_sequence=row.release_sequence,
        state=RolloutState(row.state),
        options=options,
        waves=tuple(_wave(one) for one in connection.execute(query)),
        executions=_executions(connection, rollout, row.model, release.manifest_sha256),
        probation_seconds=(
            probation.seconds if options.probation_seconds is None else options.probation_seconds
        ),
        reason=row.reason,
        approvals=_approvals(connection, rollout),
        blocked_by=under_way(connection, row.model, rollout) if row.state in NOT_BEGUN else "",
    )


def under_way(connection: Connection, model: str, but: str = "") -> str:
    """The rollout that moves a model now; "" where none does."""
    c = rollouts.c
    query = select(c.rollout).where(c.model == model, c.state.in_(ACTIVE_ROLLOUT), c.rollout != but)
    return connection.scalar(query.limit(1)) or ""


def _approvals(connection: Connection, rollout: str) -> tuple[Approval, ...]:
    c = approvals.c
    query = select(c.wave, c.person).where(c.rollout == rollout, c.approved.is_(True))
    rows = connection.execute(query.order_by(c.wave, c.person))
    return tuple(Approval(row.wave, row.person) for row in rows)


def _wave(row: Any) -> WaveView:
    return WaveView(
        row.number,
        WaveState(row.state),
        row.released_ms,
        row.soaking_ms,
        row.evaluating_ms,
        row.promoted,
        row.needs_approval,
    )


def newest_attempts(rollout: str) -> Any:
    """Join condition: only the newest attempt of each device."""
    newest = (
        select(executions.c.device, func.max(executions.c.attempt).label("attempt"))
        .where(executions.c.rollout == rollout)
        .group_by(executions.c.device)
        .subquery()
    )
    return newest, and_(
        executions.c.rollout == rollout,
        newest.c.device == executions.c.device,
        newest.c.attempt == executions.c.attempt,
    )


def _executions(
    connection: Connection, rollout: str, model: str, digest: str
) -> tuple[ExecutionView, ...]:
    newest, same = newest_attempts(rollout)
    m, a = device_models.c, assignments.c
    query = (
        select(
            executions,
            devices.c.site,
            m.active_sequence,
            m.active_version,
            m.active_manifest,
            a.intent.label("intent"),
            a.rollout.label("assigned_by"),
        )
        .join(newest, same)
        .outerjoin(devices, devices.c.device == executions.c.device)
        .outerjoin(device_models, and_(m.device == executions.c.device, m.model == model))
        .outerjoin(assignments, and_(a.device == executions.c.device, a.model == model))
        .order_by(executions.c.wave, executions.c.device)
    )
    return tuple(_execution(row, rollout, digest) for row in connection.execute(query))


def _execution(row: Any, rollout: str, digest: str) -> ExecutionView:
    return ExecutionView(
        device=row.device,
        wave=row.wave,
        attempt=row.attempt,
        state=ExecutionState(row.state),
        updated_ms=row.updated_ms,
        site=row.site or "",
        previous_sequence=row.previous_sequence,
        reported_success=row.reported_success,
        active_sequence=row.active_sequence,
        active_version=row.active_version,
        digest_agrees=row.active_manifest == digest,
        sentence=row.sentence,
        assigned_update=row.intent == "update" and row.assigned_by == rollout,
        assigned_rollback=row.intent == "rollback" and row.assigned_by == rollout,
    )


# What devices say


def has_reports(connection: Connection) -> bool:
    """Whether events came that are not applied yet."""
    since = connection.scalar(select(settings.c.value).where(settings.c.key == WATERMARK)) or 0
    return (connection.scalar(select(func.max(events.c.id))) or 0) > since


def apply_reports(connection: Connection, now_ms: int) -> int:
    """Take executions on by the events that came since the last time; return how many."""
    since = connection.scalar(select(settings.c.value).where(settings.c.key == WATERMARK)) or 0
    query = select(events).where(events.c.id > since).order_by(events.c.id).limit(EVENTS_A_TICK)
    rows = connection.execute(query).all()
    for row in rows:
        if row.kind == "execution" and row.rollout:
            _apply(connection, row, now_ms)
    if rows:
        upsert(connection, settings, {"key": WATERMARK}, {"value": rows[-1].id})
    return len(rows)


def _apply(connection: Connection, event: Any, now_ms: int) -> None:
    reported = _REPORTED.get(str(event.data.get("state")))
    here = and_(
        executions.c.rollout == event.rollout,
        executions.c.device == event.device,
        executions.c.attempt == (event.attempt or 0),
    )
    row = connection.execute(select(executions).where(here)).first()
    if row is None or reported is None or not _is_newest(connection, row):
        return
    before = ExecutionState(row.state)
    going_back = event.data.get("intent") == "rollback"
    words = {"code": event.code[:80], "sentence": event.sentence}
    if going_back:
        bad = reported in (ExecutionState.FAILED, ExecutionState.REJECTED)
        if before is ExecutionState.ROLLING_BACK and bad:
            values = {"state": ExecutionState.FAILED, **words, "updated_ms": now_ms}
            connection.execute(update(executions).where(here).values(**values))
        return
    if not follows(before, reported):
        return
    if reported is ExecutionState.SUCCEEDED:  # believed when the digest agrees
        values = {"reported_success": True, "sentence": event.sentence}
        if before is ExecutionState.OFFERED:
            values |= {"state": ExecutionState.SOAKING, "updated_ms": now_ms}
    else:
        values = {"state": reported, **words, "updated_ms": now_ms}
    connection.execute(update(executions).where(here).values(**values))


def _is_newest(connection: Connection, row: Any) -> bool:
    c = executions.c
    newest = select(func.max(c.attempt)).where(c.rollout == row.rollout, c.device == row.device)
    return bool(connection.scalar(newest) == row.attempt)


# What the planner wants


def carry_out(
    connection: Connection, view: RolloutView, actions: list[Action], now_ms: int
) -> list[str]:
    """Record the actions and change assignments; return the devices whose assignments changed."""
    touched = []
    for action in actions:
        match action:
            case SetRollout():
                _set_rollout(connection, view, action, now_ms)
            case SetWave():
                _set_wave(connection, view, action, now_ms)
            case SetExecution():
                _set_execution(connection, view, action, now_ms)
            case Offer():
                _offer(connection, view, action, now_ms)
                touched.append(action.device)
            case TakeBack():
                _take_back(connection, view, action, now_ms)
                touched.append(action.device)
            case Requeue():
                _requeue(connection, view, action, now_ms)
            case RecordApproval():
                _record_approval(connection, view, action, now_ms)
    here = rollouts.c.rollout == view.rollout
    connection.execute(update(rollouts).where(here).values(updated_ms=now_ms))
    return touched


def _set_rollout(connection: Connection, view: RolloutView, to: SetRollout, now_ms: int) -> None:
    values: dict[str, Any] = {"state": to.state}
    if to.reason is not None:
        values["reason"] = to.reason
    if to.state is RolloutState.RUNNING and view.state in NOT_BEGUN:
        values["started_ms"] = now_ms
    values["finished_ms"] = now_ms if to.state in FINAL_ROLLOUT else None
    here = rollouts.c.rollout == view.rollout
    connection.execute(update(rollouts).where(here).values(**values))


def _set_wave(connection: Connection, view: RolloutView, to: SetWave, now_ms: int) -> None:
    values: dict[str, Any] = {"state": to.state, "reason": to.reason}
    if to.gates is not None:
        values["gates"] = [asdict(gate) for gate in to.gates]
    if to.promoted:
        values["promoted"] = True
    stamps = {
        WaveState.RELEASING: "released_ms",
        WaveState.SOAKING: "soaking_ms",
        WaveState.EVALUATING: "evaluating_ms",
    }
    if to.state in stamps:
        values[stamps[to.state]] = now_ms
    if to.state is WaveState.RELEASING:  # again, perhaps: it soaks and is judged anew
        values |= {"soaking_ms": None, "evaluating_ms": None, "finished_ms": None}
    if to.state in (WaveState.PASSED, WaveState.FAILED, WaveState.INCONCLUSIVE):
        values["finished_ms"] = now_ms
        values["released_ms"] = func.coalesce(waves.c.released_ms, now_ms)
    here = and_(waves.c.rollout == view.rollout, waves.c.number == to.number)
    connection.execute(update(waves).where(here).values(**values))


def _set_execution(
    connection: Connection, view: RolloutView, to: SetExecution, now_ms: int
) -> None:
    values = {
        "state": to.state,
        "code": to.code,
        "sentence": to.sentence,
        "updated_ms": now_ms,
    }
    connection.execute(update(executions).where(_here(view, to)).values(**values))


def _offer(connection: Connection, view: RolloutView, offer: Offer, now_ms: int) -> None:
    values = {
        "release_sequence": view.release_sequence,
        "rollout": view.rollout,
        "wave": offer.wave,
        "attempt": offer.attempt,
        "intent": "update",
        "probation_seconds": view.options.probation_seconds,
        "updated_ms": now_ms,
    }
    key = {"device": offer.device, "model": view.model}
    running = connection.execute(
        select(device_models.c.active_sequence, device_models.c.active_version).where(
            device_models.c.device == offer.device, device_models.c.model == view.model
        )
    ).first()
    changed: dict[str, Any] = {"state": ExecutionState.OFFERED, "offered_ms": now_ms}
    if offer.attempt == 1 and running and running.active_sequence != view.release_sequence:
        changed["previous_sequence"] = running.active_sequence
        changed["previous_version"] = running.active_version
    connection.execute(
        update(executions).where(_here(view, offer)).values(**changed, updated_ms=now_ms)
    )
    upsert(connection, assignments, key, values)
    mark_dirty(connection, offer.device)


def _take_back(connection: Connection, view: RolloutView, back: TakeBack, now_ms: int) -> None:
    key = {"device": back.device, "model": view.model}
    if back.previous_sequence is None:
        here = and_(assignments.c.device == back.device, assignments.c.model == view.model)
        connection.execute(delete(assignments).where(here))
    else:
        values = {
            "release_sequence": back.previous_sequence,
            "rollout": view.rollout,
            "wave": back.wave,
            "attempt": back.attempt,
            "intent": "rollback",
            "probation_seconds": None,
            "updated_ms": now_ms,
        }
        upsert(connection, assignments, key, values)
    mark_dirty(connection, back.device)


def _record_approval(
    connection: Connection, view: RolloutView, one: RecordApproval, now_ms: int
) -> None:
    key = {"rollout": view.rollout, "wave": one.wave, "person": one.person}
    values = {"approved": one.approved, "reason": one.reason, "at_ms": now_ms}
    upsert(connection, approvals, key, values)


def _here(view: RolloutView, one: SetExecution | Offer | Requeue) -> Any:
    return and_(
        executions.c.rollout == view.rollout,
        executions.c.device == one.device,
        executions.c.attempt == one.attempt,
    )


def _requeue(connection: Connection, view: RolloutView, one: Requeue, now_ms: int) -> None:
    row = connection.execute(select(executions).where(_here(view, one))).one()
    connection.execute(
        insert(executions).values(
            rollout=view.rollout,
            device=one.device,
            attempt=one.attempt + 1,
            wave=row.wave,
            state=ExecutionState.QUEUED,
            previous_sequence=row.previous_sequence,
            previous_version=row.previous_version,
            updated_ms=now_ms,
        )
    )
