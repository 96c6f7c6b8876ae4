"""Reading what gates judge: windows and statistics of a wave, of the control, and of their past."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, and_, bindparam, desc, select

from controller.drift import merge_fields
from controller.releases import release_by_sequence
from controller.rollouts.gates import Compared, Evidence, evaluate
from controller.rollouts.significance import (
    Look,
    choose_metrics,
    detectable_changes,
    look_for_harm,
)
from controller.rollouts.states import ExecutionState
from controller.rollouts.values import GateResult
from controller.schema import device_models, executions, rollouts, statistics, waves, windows
from shoal.latency import add_histograms
from shoal.protocol.manifest import Gates, Manifest

MAX_DEVICES = 500
"""More of a wave, or of the control, tell nothing new."""
MAX_WINDOWS = 1000
"""Of each device, since then."""
PAST_WINDOWS = 20
"""Of each device, before the wave was released."""
FOR_EVER_MS = 2**62
MAX_PREVIEWED = 100
"""Devices whose past a preview reads."""


@dataclass(frozen=True, slots=True)
class _Device:
    """A device, with the release it runs now and the one it ran when the wave began."""

    name: str
    sequence: int
    before: int | None


def judge_wave(connection: Connection, rollout: str, number: int) -> tuple[GateResult, ...]:
    """Evaluate the limits of a wave by what is known now."""
    row, manifest, limits = _read(connection, rollout)
    found = compare_wave(connection, row, number)
    return evaluate(limits, manifest.probation.max_out_of_range_ratio, found)


def look_at_wave(
    connection: Connection, rollout: str, number: int, look: Look
) -> tuple[GateResult, ...]:
    """Test a wave for significance by what was known at a look; the same whenever it is asked."""
    row, manifest, limits = _read(connection, rollout)
    found = compare_wave(connection, row, number, look.at_ms)
    measured = [one.name for one in manifest.contract.outputs if one.unit]
    return look_for_harm(found, limits, look, measured)


def what_a_canary_finds(
    connection: Connection, manifest: Manifest, limits: Gates, canary: list[str], control: list[str]
) -> dict[str, float | None]:
    """The least harm that tests would find, by how these devices changed in their last windows."""
    halves: tuple[dict[str, Evidence], dict[str, Evidence]] = ({}, {})
    for device in [*canary, *control][:MAX_PREVIEWED]:
        for half, found in zip(halves, _halves(connection, manifest.model, device), strict=True):
            if found.rows >= limits.min_rows:
                half[device] = found
    measured = [one.name for one in manifest.contract.outputs if one.unit]
    metrics = choose_metrics(Compared([], [], halves[0], True), limits, measured)
    return detectable_changes(metrics, halves, len(canary), len(control))


def _halves(connection: Connection, model: str, device: str) -> tuple[Evidence, Evidence]:
    def rows(table: Table) -> list[Any]:
        c = table.c
        query = select(table).where(c.device == device, c.model == model)
        return list(connection.execute(query.order_by(desc(c.end_ms)).limit(2 * PAST_WINDOWS)))

    reported, counted = rows(windows), rows(statistics)
    return (
        summarise(device, reported[len(reported) // 2 :], counted[len(counted) // 2 :]),
        summarise(device, reported[: len(reported) // 2], counted[: len(counted) // 2]),
    )


def _read(connection: Connection, rollout: str) -> tuple[Any, Manifest, Gates]:
    row = connection.execute(select(rollouts).where(rollouts.c.rollout == rollout)).one()
    release = release_by_sequence(connection, row.model, row.release_sequence)
    manifest = msgspec.convert(release["manifest"], Manifest)
    chosen = row.options.get("gates")
    return row, manifest, msgspec.convert(chosen, Gates) if chosen else manifest.gates


def compare_wave(
    connection: Connection, row: Any, number: int, until_ms: int = FOR_EVER_MS
) -> Compared:
    """Everything reported of a wave and its control, before and since its release."""
    here = (waves.c.rollout == row.rollout) & (waves.c.number == number)
    since_ms = connection.scalar(select(waves.c.released_ms).where(here)) or 0
    wave = _wave(connection, row, number)
    control = _control(connection, row, number)
    return Compared(
        wave=[_since(connection, row.model, one, since_ms, until_ms) for one in wave],
        control=[_since(connection, row.model, one, since_ms, until_ms) for one in control],
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


def _since(
    connection: Connection, model: str, one: _Device, since_ms: int, until_ms: int
) -> Evidence:
    """What a device reported since a moment of our own clock, whatever its clock says."""

    return _read_one(connection, model, one.name, one.sequence, since_ms, until_ms, MAX_WINDOWS)


def _past(connection: Connection, model: str, one: _Device, before_ms: int) -> Evidence:
    """The last windows before that moment."""

    return _read_one(connection, model, one.name, one.before, 0, before_ms - 1, PAST_WINDOWS)


def _read_one(
    connection: Connection,
    model: str,
    device: str,
    sequence: int | None,
    since_ms: int,
    until_ms: int,
    most: int,
) -> Evidence:
    asked = {
        "b_device": device,
        "b_model": model,
        "b_sequence": sequence,
        "b_since": since_ms,
        "b_until": until_ms,
        "b_most": most,
    }
    reported, counted = (connection.execute(one, asked).all() for one in _statements())
    return summarise(device, reported, counted)


@cache
def _statements() -> tuple[Any, Any]:
    """The newest windows and statistics of a device, release and span; made once, as they are asked
    for each device of a wave at every tick, and making one costs more than running it."""
    w, s = windows.c, statistics.c
    return (
        _newest(windows, (w.ok, w.failed, w.latency_counts, w.labels)),
        _newest(statistics, (s.baseline, s.outputs)),
    )


def _newest(table: Table, columns: tuple[Any, ...]) -> Any:
    c = table.c
    return (
        select(*columns)
        .where(
            c.device == bindparam("b_device"),
            c.model == bindparam("b_model"),
            c.release_sequence == bindparam("b_sequence"),
            c.received_ms.between(bindparam("b_since"), bindparam("b_until")),
        )
        .order_by(desc(c.end_ms))
        .limit(bindparam("b_most"))
    )


def summarise(device: str, reported: Sequence[Any], counted: Sequence[Any]) -> Evidence:
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
        moments={
            one.name: (one.mean, math.sqrt(max(one.m2, 0.0) / (one.count - 1)))
            for one in outputs
            if one.count > 1
        },
    )
