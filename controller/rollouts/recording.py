"""Writing what the planner wants done, in the caller's transaction.

What was planned is recorded together with the assignments that carry it out; the director signs and
publishes them afterwards. Rows of a kind are written together: a wave may have 100,000 devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from controller.director import mark_dirty
from controller.ingest.write import upsert, upsert_all
from controller.rollouts.reports import in_parts
from controller.rollouts.states import (
    FINAL_ROLLOUT,
    NOT_BEGUN,
    ExecutionState,
    RolloutState,
    WaveState,
)
from controller.rollouts.values import (
    Action,
    Offer,
    RecordApproval,
    Requeue,
    RolloutView,
    SetExecution,
    SetRollout,
    SetWave,
    TakeBack,
)
from controller.schema import approvals, assignments, device_models, executions, rollouts, waves

_Kind = TypeVar("_Kind")
_ASSIGNED = (
    "release_sequence",
    "rollout",
    "wave",
    "attempt",
    "intent",
    "probation_seconds",
    "updated_ms",
)


def carry_out(
    connection: Connection, view: RolloutView, actions: Sequence[Action], now_ms: int
) -> list[str]:
    """Record the actions and change assignments; return the devices whose assignments changed.

    New attempts come first, since other actions speak of them.
    """

    def of(kind: type[_Kind]) -> list[_Kind]:
        return [one for one in actions if isinstance(one, kind)]

    _requeue(connection, view, of(Requeue), now_ms)
    _offer(connection, view, of(Offer), now_ms)
    _take_back(connection, view, of(TakeBack), now_ms)
    _set_executions(connection, view, of(SetExecution), now_ms)
    for wave in of(SetWave):
        _set_wave(connection, view, wave, now_ms)
    for rollout in of(SetRollout):
        _set_rollout(connection, view, rollout, now_ms)
    for approval in of(RecordApproval):
        _record_approval(connection, view, approval, now_ms)
    here = rollouts.c.rollout == view.rollout
    connection.execute(update(rollouts).where(here).values(updated_ms=now_ms))
    return [one.device for one in actions if isinstance(one, Offer | TakeBack)]


# Rollouts and waves


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


def _record_approval(
    connection: Connection, view: RolloutView, one: RecordApproval, now_ms: int
) -> None:
    key = {"rollout": view.rollout, "wave": one.wave, "person": one.person}
    values = {"approved": one.approved, "reason": one.reason, "at_ms": now_ms}
    upsert(connection, approvals, key, values)


# Executions and assignments


def _set_executions(
    connection: Connection, view: RolloutView, changes: list[SetExecution], now_ms: int
) -> None:
    _update(
        connection,
        view,
        [
            {
                "b_device": one.device,
                "b_attempt": one.attempt,
                "state": one.state,
                "code": one.code,
                "sentence": one.sentence,
                "updated_ms": now_ms,
            }
            for one in changes
        ],
    )


def _offer(connection: Connection, view: RolloutView, offers: list[Offer], now_ms: int) -> None:
    if not offers:
        return
    running = _running(connection, view.model, [one.device for one in offers])
    offered = {"state": ExecutionState.OFFERED, "offered_ms": now_ms, "updated_ms": now_ms}
    first, others = [], []
    for one in offers:
        key = {"b_device": one.device, "b_attempt": one.attempt}
        sequence, version = running.get(one.device, (None, None))
        if one.attempt == 1 and one.device in running and sequence != view.release_sequence:
            first.append(
                {**key, **offered, "previous_sequence": sequence, "previous_version": version}
            )
        else:
            others.append(key | offered)
    _update(connection, view, first)
    _update(connection, view, others)
    asked = {
        "release_sequence": view.release_sequence,
        "intent": "update",
        "probation_seconds": view.options.probation_seconds,
    }
    _assign(connection, view, [(one, asked) for one in offers], now_ms)


def _take_back(
    connection: Connection, view: RolloutView, backs: list[TakeBack], now_ms: int
) -> None:
    asked = [
        (
            one,
            {
                "release_sequence": one.previous_sequence,
                "intent": "rollback",
                "probation_seconds": None,
            },
        )
        for one in backs
        if one.previous_sequence is not None
    ]
    _assign(connection, view, asked, now_ms)
    for some in in_parts(one.device for one in backs if one.previous_sequence is None):
        here = and_(assignments.c.device.in_(some), assignments.c.model == view.model)
        connection.execute(delete(assignments).where(here))
        mark_dirty(connection, *some)


def _assign(
    connection: Connection,
    view: RolloutView,
    asked: Sequence[tuple[Offer | TakeBack, dict[str, Any]]],
    now_ms: int,
) -> None:
    rows = [
        {
            "device": one.device,
            "model": view.model,
            "rollout": view.rollout,
            "wave": one.wave,
            "attempt": one.attempt,
            "updated_ms": now_ms,
            **values,
        }
        for one, values in asked
    ]
    if rows:
        upsert_all(connection, assignments, rows, ("device", "model"), _ASSIGNED)
        mark_dirty(connection, *(one.device for one, _ in asked))


def _running(
    connection: Connection, model: str, names: list[str]
) -> dict[str, tuple[int | None, str | None]]:
    """What devices run now, as (sequence, version)."""
    c = device_models.c
    found: dict[str, tuple[int | None, str | None]] = {}
    for some in in_parts(names):
        query = select(c.device, c.active_sequence, c.active_version).where(
            c.model == model, c.device.in_(some)
        )
        found |= {row[0]: (row[1], row[2]) for row in connection.execute(query)}
    return found


def _requeue(connection: Connection, view: RolloutView, again: list[Requeue], now_ms: int) -> None:
    c = executions.c
    attempts = {one.device: one.attempt for one in again}
    for some in in_parts(attempts):
        query = select(c.device, c.attempt, c.wave, c.previous_sequence, c.previous_version).where(
            c.rollout == view.rollout, c.device.in_(some)
        )
        rows = [
            {
                **row,
                "rollout": view.rollout,
                "attempt": row["attempt"] + 1,
                "state": ExecutionState.QUEUED,
                "updated_ms": now_ms,
            }
            for row in connection.execute(query).mappings()
            if row["attempt"] == attempts[row["device"]]
        ]
        connection.execute(insert(executions), rows)


def _update(connection: Connection, view: RolloutView, rows: list[dict[str, Any]]) -> None:
    """Change executions, each row with `b_device`, `b_attempt` and the same columns."""
    if rows:
        c = executions.c
        here = and_(
            c.rollout == view.rollout,
            c.device == bindparam("b_device"),
            c.attempt == bindparam("b_attempt"),
        )
        connection.execute(update(executions).where(here), rows)
