"""Reading what gates judge: windows and statistics of a wave, of the control, and of their past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, and_, desc, select

from controller.drift import merge_fields
from controller.releases import release_by_sequence
from controller.rollouts.gates import Compared, Evidence, evaluate
from controller.rollouts.states import ExecutionState
from controller.rollouts.values import GateResult
from controller.schema import device_models, executions, rollouts, statistics, waves, windows
from shoal.latency import add_histograms
from shoal.protocol.manifest import Gates, Manifest

MAX_DEVICES = 500
"""More of a wave, or of the control, tell nothing new."""
PAST_WINDOWS = 20
"""Of each device, before the wave was released."""


@dataclass(frozen=True, slots=True)
class _Device:
    """A device, with the release it runs now and the one it ran when the wave began."""

    name: str
    sequence: int
    before: int | None


def judge_wave(connection: Connection, rollout: str, number: int) -> tuple[GateResult, ...]:
    """Evaluate the gates of a wave by what is known now."""
    row = connection.execute(select(rollouts).where(rollouts.c.rollout == rollout)).one()
    release = release_by_sequence(connection, row.model, row.release_sequence)
    manifest = msgspec.convert(release["manifest"], Manifest)
    chosen = row.options.get("gates")
    limits = msgspec.convert(chosen, Gates) if chosen else manifest.gates
    found = _compare(connection, row, number)
    return evaluate(limits, manifest.probation.max_out_of_range_ratio, found)


def _compare(connection: Connection, row: Any, number: int) -> Compared:
    here = (waves.c.rollout == row.rollout) & (waves.c.number == number)
    since_ms = connection.scalar(select(waves.c.released_ms).where(here)) or 0
    wave = _wave(connection, row, number)
    control = _control(connection, row, number)
    return Compared(
        wave=[_since(connection, row.model, one, since_ms) for one in wave],
        control=[_since(connection, row.model, one, since_ms) for one in control],
        before={
            one.name: _past(connection, row.model, one, since_ms)
            for one in [*wave, *control]
            if one.before is not None
        },
        has_control=bool(control),
    )


def _wave(connection: Connection, row: Any, number: int) -> list[_Device]:
    """Devices of the wave on which the release stayed."""
    c = executions.c
    query = (
        select(c.device, c.previous_sequence)
        .where(c.rollout == row.rollout, c.wave == number, c.state == ExecutionState.SUCCEEDED)
        .order_by(c.device)
        .limit(MAX_DEVICES)
    )
    return [
        _Device(one.device, row.release_sequence, one.previous_sequence)
        for one in connection.execute(query)
    ]


def _control(connection: Connection, row: Any, number: int) -> list[_Device]:
    """Devices of later waves, with the release that they run."""
    c, m = executions.c, device_models.c
    query = (
        select(c.device, m.active_sequence)
        .select_from(executions)
        .join(device_models, and_(m.device == c.device, m.model == row.model))
        .where(
            c.rollout == row.rollout,
            c.wave > number,
            c.state == ExecutionState.QUEUED,
            m.active_sequence.is_not(None),
        )
        .order_by(c.device)
        .limit(MAX_DEVICES)
    )
    return [
        _Device(one.device, one.active_sequence, one.active_sequence)
        for one in connection.execute(query)
    ]


def _since(connection: Connection, model: str, one: _Device, since_ms: int) -> Evidence:
    """What a device reported since a moment of our own clock, whatever its clock says."""

    def rows(table: Table) -> list[Any]:
        c = table.c
        query = _of(table, model, one.name, one.sequence).where(c.received_ms >= since_ms)
        return list(connection.execute(query.order_by(desc(c.end_ms)).limit(1000)))

    return summarise(one.name, rows(windows), rows(statistics))


def _past(connection: Connection, model: str, one: _Device, before_ms: int) -> Evidence:
    """The last windows before that moment."""

    def rows(table: Table) -> list[Any]:
        c = table.c
        query = _of(table, model, one.name, one.before).where(c.received_ms < before_ms)
        return list(connection.execute(query.order_by(desc(c.end_ms)).limit(PAST_WINDOWS)))

    return summarise(one.name, rows(windows), rows(statistics))


def _of(table: Table, model: str, device: str, sequence: int | None) -> Any:
    c = table.c
    return select(table).where(c.device == device, c.model == model, c.release_sequence == sequence)


def summarise(device: str, reported: list[Any], counted: list[Any]) -> Evidence:
    """Windows and statistics of one device and release, as one. Pure."""
    labels: dict[str, int] = {}
    for row in reported:
        for label, count in row.labels.items():
            labels[label] = labels.get(label, 0) + count
    baselines = {row.baseline for row in counted}
    outputs = merge_fields([row.outputs for row in counted])
    return Evidence(
        device,
        answered=sum(row.ok for row in reported),
        failed=sum(sum(row.failed.values()) for row in reported),
        out_of_range=sum(one.out_of_range + one.nonfinite for one in outputs),
        answers=sum(one.count + one.nonfinite for one in outputs[:1]),
        latency_counts=tuple(add_histograms([row.latency_counts for row in reported])),
        labels=labels,
        outputs={one.name: one.bins for one in outputs},
        baseline=baselines.pop() if len(baselines) == 1 else "",
    )
