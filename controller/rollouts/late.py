"""Devices that come late to a continuous rollout: a rollout of their own, gated as any other.

Once the newest rollout of a model has succeeded and is continuous, devices that match its selector
by now, are there and do not run the release get it in one wave, so many at once. Who failed with
this release before sits out. What fails takes back the late devices alone, and ends it until a
person looks.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, desc, select

from controller import audit
from controller.database import reading, writing
from controller.rollouts import store
from controller.rollouts.drawing import Draft, DrawnWave, make_draft
from controller.rollouts.recording import carry_out
from controller.rollouts.service import insert_draft, next_name
from controller.rollouts.states import BAD, RolloutState
from controller.rollouts.values import Options, SetRollout, Specification, WaveSpec
from controller.saved_selectors import is_there, moment
from controller.schema import device_models, executions, rollouts
from controller.services import Services
from shoal.errors import ShoalError

WAVE = WaveSpec(name="late", share=1.0)


def follow_up(services: Services) -> list[str]:
    """Start a rollout for late devices of each continuous one; return their names."""
    with reading(services.engine) as connection:
        newest = _newest_continuous(connection)
    return [name for one in newest if (name := _follow(services, one))]


def _newest_continuous(connection: Connection) -> list[str]:
    """Of each model the rollout that moved it last, where it succeeded and is continuous."""
    c = rollouts.c
    query = select(c.rollout, c.model, c.state, c.options).where(c.started_ms.is_not(None))
    newest: dict[str, str] = {}
    seen: set[str] = set()
    for row in connection.execute(query.order_by(desc(c.started_ms), desc(c.created_ms))):
        if row.model not in seen:
            seen.add(row.model)
            if row.state == RolloutState.SUCCEEDED and row.options.get("continuous"):
                newest[row.model] = row.rollout
    return list(newest.values())


def _follow(services: Services, parent: str) -> str:
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        row = connection.execute(select(rollouts).where(rollouts.c.rollout == parent)).one()
        if store.under_way(connection, row.model):
            return ""
        options = _options(msgspec.convert(row.options, Options))
        specification = Specification(
            model=row.model,
            version=row.version,
            selector=row.selector,
            **{name: getattr(options, name) for name in Options.__struct_fields__},
        )
        try:
            draft = make_draft(connection, parent, specification, moment(services))
        except ShoalError:  # nobody matches, or the release was withdrawn
            return ""
        settled = _settled(connection, row.model, row.release_sequence)
        late = [one for one in draft.fitting if is_there(one) and one.device not in settled]
        if not late:
            return ""
        name = next_name(connection)
        wave = DrawnWave(WAVE.name, [one.device for one in late])
        own = Draft(specification, draft.sequence, [wave], late, [], draft.previous_sequence)
        actor = f"{parent} (continuous)"
        insert_draft(connection, name, own, actor, now_ms)
        audit.record(
            connection, now_ms, actor, "rollout.create", f"rollout {name}", {"late": len(late)}
        )
        view = store.read_view(connection, name)
        words = f"{len(late)} devices came late to {parent}"
        carry_out(connection, view, [SetRollout(RolloutState.RUNNING, words)], now_ms)
        return name


def _options(parent: Options) -> Options:
    """As the rollout before had them, in one wave, so many at once, whenever they come."""
    return msgspec.structs.replace(
        parent,
        waves=(WAVE,),
        max_under_way=parent.late_at_once,
        control_share=0.0,
        start_at=None,
        approvals=0,
    )


def _settled(connection: Connection, model: str, sequence: int) -> set[str]:
    """Devices that run the release, or have tried it and gave it up."""
    m, e, r = device_models.c, executions.c, rollouts.c
    running = select(m.device).where(m.model == model, m.active_sequence >= sequence)
    tried = (
        select(e.device)
        .join(rollouts, r.rollout == e.rollout)
        .where(
            r.model == model,
            r.release_sequence == sequence,
            e.state.in_(BAD),
        )
    )
    return {*connection.scalars(running), *connection.scalars(tried)}
