"""The looks of a soak, stored: each once, with what it saw."""

from __future__ import annotations

import zlib
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, desc, select

from controller.ingest.write import upsert
from controller.rollouts.planner import current_wave
from controller.rollouts.significance import Look, due_look
from controller.rollouts.states import RolloutState, WaveState
from controller.rollouts.values import GateResult, RolloutView, WaveView
from controller.schema import gate_looks

Document = dict[str, Any]


def judged_wave(view: RolloutView) -> WaveView | None:
    """The wave whose gates count now: it soaks, or is evaluated, in a rollout that goes on."""
    wave = current_wave(view)
    if wave is None or view.state not in (RolloutState.RUNNING, RolloutState.PAUSED):
        return None
    return wave if wave.state in (WaveState.SOAKING, WaveState.EVALUATING) else None


def due(connection: Connection, view: RolloutView, wave: WaveView, now_ms: int) -> Look | None:
    """The look at a judged wave that is due and not yet taken."""
    if wave.soaking_ms is None:
        return None
    seed = zlib.crc32(view.rollout.encode())
    look = due_look(now_ms, wave.soaking_ms, view.options.soak_seconds, seed)
    last = _last(connection, view.rollout, wave)
    if look is None or (last is not None and last.look >= look.number):
        return None
    return look


def store(
    connection: Connection,
    rollout: str,
    wave: WaveView,
    look: Look,
    found: tuple[GateResult, ...],
) -> None:
    """Keep what a look saw."""
    key = {"rollout": rollout, "wave": wave.number, "look": look.number}
    values = {
        "at_ms": look.at_ms,
        "soaking_ms": wave.soaking_ms,
        "gates": [asdict(one) for one in found],
    }
    upsert(connection, gate_looks, key, values)


def newest(connection: Connection, rollout: str, wave: WaveView) -> tuple[GateResult, ...]:
    """What the last look of this soak saw."""
    last = _last(connection, rollout, wave)
    return tuple(GateResult(**one) for one in last.gates) if last is not None else ()


def list_looks(connection: Connection, rollout: str) -> list[Document]:
    """All looks of a rollout, in order: the evidence."""
    c = gate_looks.c
    query = select(gate_looks).where(c.rollout == rollout).order_by(c.wave, c.look)
    return [dict(row) for row in connection.execute(query).mappings()]


def _last(connection: Connection, rollout: str, wave: WaveView) -> Any:
    c = gate_looks.c
    query = select(gate_looks).where(
        c.rollout == rollout, c.wave == wave.number, c.soaking_ms == wave.soaking_ms
    )
    return connection.execute(query.order_by(desc(c.look)).limit(1)).first()
