"""Reading a rollout as the planner sees it, and which rollouts there is something to do for.

Every function works inside the caller's transaction, so a tick is one step; `recording` writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, func, or_, select

from controller.collections_later import collecting_later
from controller.errors import NotFoundError
from controller.rollouts.states import (
    ACTIVE_ROLLOUT,
    NOT_BEGUN,
    UNDER_WAY,
    WORKED_ON,
    ExecutionState,
    RolloutState,
    WaveState,
)
from controller.rollouts.values import (
    Approval,
    ExecutionView,
    Options,
    RolloutView,
    WaveView,
)
from controller.schema import (
    approvals,
    assignments,
    device_models,
    devices,
    executions,
    releases,
    rollouts,
    waves,
)
from shoal.protocol.manifest import Probation

_STATES = {state.value: state for state in ExecutionState}


def active_rollouts(connection: Connection) -> list[str]:
    """Names of the rollouts that the engine works on."""
    c = rollouts.c
    query = select(c.rollout, c.options).where(c.state.in_(WORKED_ON)).order_by(c.created_ms)
    rows = connection.execute(query).all()
    first = sorted(rows, key=lambda row: -row.options.get("priority", 0))  # of those that wait
    return [row.rollout for row in first]


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


def read_to_plan(connection: Connection, rollout: str) -> RolloutView:
    """What the planner needs of a rollout in the state that it is in; a test holds it to that.

    While it runs, no device of it was told to go back, and what those run who are under way tells
    nothing.
    """
    return read_view(connection, rollout, whole=False)


def read_view(connection: Connection, rollout: str, *, whole: bool = True) -> RolloutView:
    """Everything that commands need, but the gates."""
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
    with collecting_later():
        executions_ = _executions(
            connection,
            rollout,
            row.model,
            release.manifest_sha256,
            whole=whole or row.state not in (RolloutState.RUNNING, RolloutState.PAUSED),
            sites=options.max_under_way_per_site is not None,
        )
    return RolloutView(
        rollout=rollout,
        model=row.model,
        version=row.version,
        release_sequence=row.release_sequence,
        state=RolloutState(row.state),
        options=options,
        waves=tuple(_wave(one) for one in connection.execute(query)),
        executions=executions_,
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


def movers(connection: Connection, model: str) -> tuple[list[str], str | None]:
    """Rollouts of a model that wait, and the one that moved it last; one under way comes first."""
    c = rollouts.c
    of_model = select(c.rollout).where(c.model == model)
    waiting = of_model.where(c.state.in_((RolloutState.AWAITING_APPROVAL, RolloutState.SCHEDULED)))
    begun = of_model.where(
        c.started_ms.is_not(None), c.state.notin_((*NOT_BEGUN, RolloutState.ROLLED_BACK))
    ).order_by(c.state.in_(ACTIVE_ROLLOUT).desc(), c.started_ms.desc())
    return list(connection.scalars(waiting)), connection.scalar(begun.limit(1))


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
    connection: Connection, rollout: str, model: str, digest: str, *, whole: bool, sites: bool
) -> tuple[ExecutionView, ...]:
    """Of 100,000 rows the join costs most: while a rollout runs, only those are joined for whom
    what the device runs, or who assigned it, can count."""
    c = executions.c
    columns = (
        c.device,
        c.wave,
        c.attempt,
        c.state,
        c.updated_ms,
        c.previous_sequence,
        c.reported_success,
        c.sentence,
    )
    query = select(*columns).where(c.rollout == rollout).order_by(c.device, c.attempt)
    joined = _joined(connection, rollout, model, digest, whole=whole)
    where = _sites(connection, rollout) if sites else {}
    newest: dict[str, ExecutionView] = {}
    for device, wave, attempt, state, updated, previous, success, sentence in connection.execute(
        query
    ).all():
        runs = joined.get(device) or (_GIVEN if state == ExecutionState.SUCCEEDED else _NOTHING)
        newest[device] = ExecutionView(
            device,
            wave,
            attempt,
            _STATES[state],
            updated,
            where.get(device, ""),
            previous,
            success,
            runs.sequence,
            runs.agrees,
            runs.version,
            sentence,
            runs.update,
            runs.rollback,
        )
    return tuple(sorted(newest.values(), key=attrgetter("wave")))


@dataclass(frozen=True, slots=True)
class _Runs:
    """What a device runs, and what this rollout assigned it."""

    sequence: int | None = None
    version: str | None = None
    agrees: bool = False
    update: bool = False
    rollback: bool = False


_NOTHING = _Runs()
_GIVEN = _Runs(agrees=True)


def _joined(
    connection: Connection, rollout: str, model: str, digest: str, *, whole: bool
) -> dict[str, _Runs]:
    e, m, a = executions.c, device_models.c, assignments.c
    query = (
        select(
            e.device,
            m.active_sequence,
            m.active_version,
            m.active_manifest,
            a.intent,
            a.rollout,
        )
        .select_from(executions)
        .outerjoin(device_models, and_(m.device == e.device, m.model == model))
        .outerjoin(assignments, and_(a.device == e.device, a.model == model))
        .where(e.rollout == rollout)
    )
    if not whole:
        left = and_(e.state == ExecutionState.SUCCEEDED, m.active_manifest.is_distinct_from(digest))
        said = and_(e.state != ExecutionState.SUCCEEDED, e.reported_success.is_(True))
        query = query.where(or_(left, said))
    return {
        device: _Runs(
            sequence,
            version,
            manifest == digest,
            intent == "update" and by == rollout,
            intent == "rollback" and by == rollout,
        )
        for device, sequence, version, manifest, intent, by in connection.execute(query).all()
    }


def _sites(connection: Connection, rollout: str) -> dict[str, str]:
    e, d = executions.c, devices.c
    query = select(d.device, d.site).join(executions, e.device == d.device)
    rows = connection.execute(query.where(e.rollout == rollout))
    return {row.device: row.site for row in rows}
