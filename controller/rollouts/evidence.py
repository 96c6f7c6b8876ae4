"""Reading what gates judge: windows and statistics of a wave, of its past, and of the control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, desc, select

from controller.artifacts import Artifacts
from controller.drift import merge_fields
from controller.releases import release_by_sequence
from controller.rollouts.gates import Compared, Evidence, evaluate, output_shift
from controller.rollouts.states import ExecutionState
from controller.rollouts.values import GateResult
from controller.schema import device_models, executions, rollouts, statistics, waves, windows
from shoal.errors import ShoalError
from shoal.latency import add_histograms
from shoal.protocol.manifest import Gates, Manifest

MAX_DEVICES = 500
"""More of a wave, or of the control, tell nothing new."""
PAST_WINDOWS = 20


@dataclass(frozen=True, slots=True)
class _Scope:
    model: str
    sequence: int
    since_ms: int
    before_ms: int | None = None


def judge_wave(
    connection: Connection, artifacts: Artifacts, rollout: str, number: int
) -> tuple[GateResult, ...]:
    """Evaluate the gates of a wave by what is known now."""
    row = connection.execute(select(rollouts).where(rollouts.c.rollout == rollout)).one()
    release = release_by_sequence(connection, row.model, row.release_sequence)
    manifest = msgspec.convert(release["manifest"], Manifest)
    chosen = row.options.get("gates")
    limits = msgspec.convert(chosen, Gates) if chosen else manifest.gates
    found = _compare(connection, artifacts, row, number)
    return evaluate(limits, manifest.probation.max_out_of_range_ratio, found)


def _compare(connection: Connection, artifacts: Artifacts, row: Any, number: int) -> Compared:
    here = (waves.c.rollout == row.rollout) & (waves.c.number == number)
    released_ms = connection.scalar(select(waves.c.released_ms).where(here)) or 0
    members = connection.execute(
        select(executions)
        .where(
            executions.c.rollout == row.rollout,
            executions.c.wave == number,
            executions.c.state == ExecutionState.SUCCEEDED,
        )
        .order_by(executions.c.device)
        .limit(MAX_DEVICES)
    ).all()
    names = [one.device for one in members]
    scope = _Scope(row.model, row.release_sequence, released_ms)
    before: dict[str, Evidence] = {}
    for one in members:
        if one.previous_sequence is not None:
            past = _Scope(row.model, one.previous_sequence, 0, released_ms)
            before[one.device] = _past(connection, past, one.device)
    control = _control(connection, row.rollout, number)
    by_device = {device: Evidence(device) for device in names} | _evidence(
        connection, artifacts, scope, names
    )
    return Compared(
        list(by_device.values()),
        before,
        _control_evidence(connection, artifacts, row, control, released_ms),
        bool(control),
    )


def _control(connection: Connection, rollout: str, number: int) -> list[tuple[str, int]]:
    """Devices of later waves, with the release that they run."""
    model = select(rollouts.c.model).where(rollouts.c.rollout == rollout).scalar_subquery()
    query = (
        select(executions.c.device, device_models.c.active_sequence)
        .select_from(executions)
        .join(
            device_models,
            and_(
                device_models.c.device == executions.c.device,
                device_models.c.model == model,
            ),
        )
        .where(
            executions.c.rollout == rollout,
            executions.c.wave > number,
            executions.c.state == ExecutionState.QUEUED,
            device_models.c.active_sequence.is_not(None),
        )
        .order_by(executions.c.device)
        .limit(MAX_DEVICES)
    )
    return [(row.device, row.active_sequence) for row in connection.execute(query)]


def _control_evidence(
    connection: Connection,
    artifacts: Artifacts,
    row: Any,
    control: list[tuple[str, int]],
    since_ms: int,
) -> list[Evidence]:
    found: list[Evidence] = []
    for sequence in {one[1] for one in control}:
        names = [device for device, runs in control if runs == sequence]
        scope = _Scope(row.model, sequence, since_ms)
        found += _evidence(connection, artifacts, scope, names).values()
    return found


def _evidence(
    connection: Connection, artifacts: Artifacts, scope: _Scope, names: list[str]
) -> dict[str, Evidence]:
    """Evidence of devices since a moment of our own clock, whatever theirs say."""
    reported: dict[str, list[Any]] = {}
    for row in connection.execute(_select(windows, scope, names)):
        reported.setdefault(row.device, []).append(row)
    counted: dict[str, list[Any]] = {}
    for row in connection.execute(_select(statistics, scope, names)):
        counted.setdefault(row.device, []).append(row)
    return {
        device: _one(artifacts, device, rows, counted.get(device, []))
        for device, rows in reported.items()
    }


def _past(connection: Connection, scope: _Scope, device: str) -> Evidence:
    query = _select(windows, scope, [device]).order_by(desc(windows.c.id)).limit(PAST_WINDOWS)
    rows = connection.execute(query).all()
    counts = add_histograms([row.latency_counts for row in rows])
    return Evidence(device, answered=sum(row.ok for row in rows), latency_counts=tuple(counts))


def _select(table: Any, scope: _Scope, names: list[str]) -> Any:
    c = table.c
    query = select(table).where(
        c.model == scope.model,
        c.release_sequence == scope.sequence,
        c.received_ms >= scope.since_ms,
        c.device.in_(names),
    )
    return query if scope.before_ms is None else query.where(c.received_ms < scope.before_ms)


def _one(artifacts: Artifacts, device: str, rows: list[Any], counted: list[Any]) -> Evidence:
    outputs = merge_fields([row.outputs for row in counted])
    return Evidence(
        device,
        answered=sum(row.ok for row in rows),
        failed=sum(sum(row.failed.values()) for row in rows),
        out_of_range=sum(one.out_of_range + one.nonfinite for one in outputs),
        latency_counts=tuple(add_histograms([row.latency_counts for row in rows])),
        shift=_shift(artifacts, counted, {one.name: one.bins for one in outputs}),
    )


def _shift(artifacts: Artifacts, counted: list[Any], bins: dict[str, list[int]]) -> float | None:
    digests = {row.baseline for row in counted if row.baseline}
    if len(digests) != 1:
        return None
    try:
        baseline = artifacts.baseline(digests.pop())
    except ShoalError:
        return None
    fields = [one for one in baseline.outputs if one.name in bins]
    return output_shift([one.counts for one in fields], [bins[one.name] for one in fields])
