"""What people ask of rollouts: create, command, and read; `drawing` plans them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, desc, func, insert, select, update

from controller import audit
from controller.database import reading, writing
from controller.errors import ConflictError, ForbiddenError, NotFoundError
from controller.ingest.write import upsert
from controller.people.another import is_own
from controller.people.person import Person
from controller.rollouts import store
from controller.rollouts.approvals import START, awaited
from controller.rollouts.commands import decide, supersede
from controller.rollouts.drawing import (
    Draft,
    check_expected,
    check_unchanged,
    make_draft,
)
from controller.rollouts.recording import carry_out
from controller.rollouts.schedule import describe
from controller.rollouts.states import (
    BAD,
    FINAL_ROLLOUT,
    UNDER_WAY,
    VERBS,
    ExecutionState,
    RolloutState,
    WaveState,
)
from controller.rollouts.values import (
    Approval,
    Options,
    RolloutView,
    SetRollout,
    Specification,
    WaveView,
)
from controller.saved_selectors import moment
from controller.schema import (
    approvals,
    executions,
    releases,
    rollouts,
    settings,
    waves,
)
from controller.selection import Moment
from controller.services import Services

Document = dict[str, Any]

NUMBER = "rollout-number"
DECISIONS = ("approve", "reject")


def create(
    services: Services, specification: Specification, actor: str, because: str = ""
) -> Document:
    """Store a rollout and start it unless it shall stay a draft.

    `because`: the reason that the draft shows, and the audit log keeps.
    """
    now_ms = services.now_ms()
    least = max(specification.approvals, services.settings.rollouts.approvals)
    specification = msgspec.structs.replace(specification, approvals=least)
    with writing(services.engine) as connection:
        rollout = next_name(connection)
        draft = make_draft(connection, rollout, specification, moment(services))
        check_expected(specification.expect, len(draft.fitting))
        insert_draft(connection, rollout, draft, actor, now_ms)
        audit.record(
            connection,
            now_ms,
            actor,
            "rollout.create",
            f"rollout {rollout}",
            msgspec.to_builtins(specification) | ({"because": because} if because else {}),
        )
        if because:
            here = rollouts.c.rollout == rollout
            connection.execute(update(rollouts).where(here).values(reason=because))
        if specification.start:
            _start(connection, store.read_view(connection, rollout), actor, now_ms)
        return get_rollout(connection, rollout)


def command(
    services: Services, rollout: str, verb: str, actor: str, expect: int | None = None
) -> Document:
    """Do what a person asks, or raise `ConflictError` saying why it cannot be done now.

    `expect`: how many devices a person saw match; with it, `start` plans anew for those of now.
    """
    if verb in DECISIONS:
        raise NotFoundError(f"verb {verb}: a decision about an approval is asked for by itself")
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        view = store.read_view(connection, rollout)
        actions = decide(view, verb, actor)
        if verb == "start":
            view = _ask_approvals(connection, view, services.settings.rollouts.approvals)
            _plan_again(connection, view, moment(services), expect)
            _start(connection, view, actor, now_ms)
        else:
            if verb == "rollback":
                _check_free(connection, view.model, but=rollout)
                _check_newest(connection, rollout)
            carry_out(connection, view, actions, now_ms)
        audit.record(connection, now_ms, actor, f"rollout.{verb}", f"rollout {rollout}")
        return get_rollout(connection, rollout)


def decide_approval(
    services: Services, rollout: str, verb: str, person: Person, reason: str
) -> Document:
    """Approve or reject what waits for it: a start, or a wave.

    What is approved is the plan as it stands: a start for other devices by now is refused.
    """
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        view = store.read_view(connection, rollout)
        actor = person.owner or person.name
        actions = decide(view, verb, actor, reason)
        _check_another(connection, rollout, person)
        wave = awaited(view)
        states = [one.state for one in actions if isinstance(one, SetRollout)]
        begins = wave == START and RolloutState.RUNNING in states
        if begins or RolloutState.SCHEDULED in states:
            _plan_again(connection, view, moment(services), None)
        if begins:
            _make_room(connection, view, now_ms)
        carry_out(connection, view, actions, now_ms)
        data = {"wave": wave, "reason": reason}
        audit.record(connection, now_ms, person.name, f"rollout.{verb}", f"rollout {rollout}", data)
        return get_rollout(connection, rollout)


def _start(connection: Connection, view: RolloutView, actor: str, now_ms: int) -> None:
    actions = decide(view, "start", actor)
    here = rollouts.c.rollout == view.rollout
    connection.execute(update(rollouts).where(here).values(started_by=actor))
    if SetRollout(RolloutState.RUNNING, "") in actions:
        _make_room(connection, view, now_ms)
    carry_out(connection, view, actions, now_ms)


def _make_room(connection: Connection, view: RolloutView, now_ms: int) -> None:
    """Let a rollout run that is asked to at once: none of the model is, or its place is taken."""
    other = store.under_way(connection, view.model, view.rollout)
    if not other or view.options.on_conflict != "supersede":
        _check_free(connection, view.model, but=view.rollout)
        return
    held = store.read_view(connection, other)
    mine, theirs = view.options.priority, held.options.priority
    if held.state is RolloutState.ROLLING_BACK or theirs >= mine:
        why = "rolls back" if theirs < mine else f"has priority {theirs}, expected less than {mine}"
        raise ConflictError(
            f"rollout {view.rollout}: cannot supersede {other}, which {why}", code="rollout-active"
        )
    carry_out(connection, held, supersede(held, view.rollout), now_ms)


def recall(services: Services, model: str, actor: str) -> Document:
    """Take the newest release of a model back from the whole fleet, at once.

    Rolls back what moved the model last, and cancels what waits to move it.
    """
    with reading(services.engine) as connection:
        waiting, last = store.movers(connection, model)
    if last is None:
        raise NotFoundError(f"model {model[:80]!r}: no rollout has moved it")
    for rollout in waiting:
        command(services, rollout, "abort", actor)
    return command(services, last, "rollback", actor)


def _ask_approvals(connection: Connection, view: RolloutView, least: int) -> RolloutView:
    """A draft from before the controller asked for approvals asks for them, too."""
    if view.options.approvals >= least:
        return view
    options = msgspec.structs.replace(view.options, approvals=least)
    here = rollouts.c.rollout == view.rollout
    values = {"options": msgspec.to_builtins(options)}
    connection.execute(update(rollouts).where(here).values(**values))
    return replace(view, options=options)


def _check_another(connection: Connection, rollout: str, person: Person) -> None:
    """Nobody approves what is their own, by whatever token they created or started it."""
    row = connection.execute(
        select(rollouts.c.created_by, rollouts.c.started_by).where(rollouts.c.rollout == rollout)
    ).one()
    if is_own(connection, {row.created_by, row.started_by}, person):
        raise ForbiddenError(
            f"rollout {rollout}: {person.name} has created or started it; another person decides",
            code="same-person",
        )


# What other rollouts allow


def _check_free(connection: Connection, model: str, but: str = "") -> None:
    other = store.under_way(connection, model, but)
    if other:
        raise ConflictError(
            f"model {model}: rollout {other} is under way; one rollout of a model at a time",
            code="rollout-active",
        )


def _check_newest(connection: Connection, rollout: str) -> None:
    """Rolling an old rollout back would undo what a newer one of the model has done since."""
    c = rollouts.c
    own = connection.execute(select(c.model, c.started_ms).where(c.rollout == rollout)).one()
    query = select(c.rollout).where(
        c.model == own.model,
        c.rollout != rollout,
        c.started_ms > (own.started_ms or 0),
        c.state.in_(FINAL_ROLLOUT - {RolloutState.ROLLED_BACK}),
    )
    newer = connection.scalar(query.order_by(desc(c.started_ms)))
    if newer is not None:
        raise ConflictError(
            f"rollout {rollout}: {newer} has moved {own.model} since; roll that one back first",
            code="not-the-newest",
        )


def next_name(connection: Connection) -> str:
    query = select(settings.c.value).where(settings.c.key == NUMBER)
    number = (connection.scalar(query) or 0) + 1
    upsert(connection, settings, {"key": NUMBER}, {"value": number})
    return f"r-{number}"


def _plan_again(
    connection: Connection, view: RolloutView, moment: Moment, expect: int | None
) -> None:
    """Start only what was planned: the devices of the draft, or those that were expected."""
    here = rollouts.c.rollout == view.rollout
    selector = connection.scalars(select(rollouts.c.selector).where(here)).one()
    options = {name: getattr(view.options, name) for name in Options.__struct_fields__}
    specification = Specification(
        model=view.model, version=view.version, selector=selector, **options
    )
    draft = make_draft(connection, view.rollout, specification, moment)
    if expect is None:
        check_unchanged(view.rollout, (one.device for one in view.executions), draft)
        return
    check_expected(expect, len(draft.fitting))
    connection.execute(delete(executions).where(executions.c.rollout == view.rollout))
    connection.execute(delete(waves).where(waves.c.rollout == view.rollout))
    values = {"excluded": draft.excluded, "previous_sequence": draft.previous_sequence}
    connection.execute(update(rollouts).where(here).values(**values))
    _insert_waves(connection, view.rollout, draft, moment.now_ms)


def insert_draft(
    connection: Connection, rollout: str, draft: Draft, actor: str, now_ms: int
) -> None:
    spec = draft.specification
    connection.execute(
        insert(rollouts).values(
            rollout=rollout,
            model=spec.model,
            release_sequence=draft.sequence,
            version=spec.version,
            previous_sequence=draft.previous_sequence,
            selector=spec.selector,
            state=RolloutState.DRAFT,
            options=msgspec.to_builtins(spec.options()),
            excluded=draft.excluded,
            created_ms=now_ms,
            created_by=actor,
            updated_ms=now_ms,
        )
    )
    _insert_waves(connection, rollout, draft, now_ms)


def _insert_waves(connection: Connection, rollout: str, draft: Draft, now_ms: int) -> None:
    for number, wave in enumerate(draft.waves, start=1):
        connection.execute(
            insert(waves).values(
                rollout=rollout,
                number=number,
                name=wave.name,
                state=WaveState.PENDING,
                size=len(wave.devices),
                gates=[],
                needs_approval=wave.needs_approval,
            )
        )
        rows = [
            {
                "rollout": rollout,
                "device": device,
                "attempt": 1,
                "wave": number,
                "state": ExecutionState.QUEUED,
                "updated_ms": now_ms,
            }
            for device in wave.devices
        ]
        if rows:
            connection.execute(insert(executions), rows)


# Reading


def list_rollouts(connection: Connection, limit: int = 200) -> list[Document]:
    """All rollouts, newest first."""
    query = select(rollouts).order_by(desc(rollouts.c.created_ms), desc(rollouts.c.rollout))
    rows = connection.execute(query.limit(limit)).mappings()
    return [_document(connection, dict(row)) for row in rows]


def get_rollout(connection: Connection, rollout: str) -> Document:
    """One rollout with its waves and gates."""
    query = select(rollouts).where(rollouts.c.rollout == rollout)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"rollout {rollout[:80]!r}: no such rollout")
    return _document(connection, dict(row))


def list_attempts(connection: Connection, rollout: str, device: str) -> list[Document]:
    """Every attempt of a device, oldest first."""
    get_rollout(connection, rollout)
    c = executions.c
    query = select(executions).where(c.rollout == rollout, c.device == device)
    return [dict(row) for row in connection.execute(query.order_by(c.attempt)).mappings()]


def list_executions(connection: Connection, rollout: str) -> list[Document]:
    """The newest attempt of each device."""
    get_rollout(connection, rollout)
    newest, same = store.newest_attempts(rollout)
    query = select(executions).join(newest, same)
    rows = connection.execute(query.order_by(executions.c.wave, executions.c.device))
    return [dict(row) for row in rows.mappings()]


def _document(connection: Connection, row: Document) -> Document:
    found = count_states(connection, row["rollout"])
    query = select(waves).where(waves.c.rollout == row["rollout"]).order_by(waves.c.number)
    row["waves"] = [
        _wave_document(dict(wave), found.get(wave["number"], Counter()))
        for wave in connection.execute(query).mappings()
    ]
    row["previous_version"] = _previous_version(connection, row)
    row["approvals"] = _decisions(connection, row["rollout"])
    row["schedule"] = describe(msgspec.convert(row["options"], Options))
    row["awaits_approval_of"] = _awaited(row)
    row["verbs"] = [
        verb
        for verb, states in VERBS.items()
        if row["state"] in states
        and (verb not in DECISIONS or row["awaits_approval_of"] is not None)
    ]
    return row


def _decisions(connection: Connection, rollout: str) -> list[Document]:
    c = approvals.c
    query = select(c.wave, c.person, c.approved, c.reason, c.at_ms).where(c.rollout == rollout)
    return [dict(row) for row in connection.execute(query.order_by(c.at_ms)).mappings()]


def _awaited(row: Document) -> int | None:
    """As `approvals.awaited` has it, of a document."""
    view = RolloutView(
        rollout=row["rollout"],
        model=row["model"],
        version=row["version"],
        release_sequence=row["release_sequence"],
        state=RolloutState(row["state"]),
        options=msgspec.convert(row["options"], Options),
        waves=tuple(
            WaveView(one["number"], WaveState(one["state"]), needs_approval=one["needs_approval"])
            for one in row["waves"]
        ),
        executions=(),
        approvals=tuple(
            Approval(one["wave"], one["person"]) for one in row["approvals"] if one["approved"]
        ),
    )
    return awaited(view)


def _wave_document(wave: Document, states: Counter[str]) -> Document:
    wave.pop("rollout")
    wave["done"] = states[ExecutionState.SUCCEEDED]
    wave["failed"] = sum(states[state] for state in BAD)
    wave["under_way"] = sum(states[state] for state in UNDER_WAY)
    wave["lost"] = states[ExecutionState.TIMED_OUT]
    return wave


def count_states(connection: Connection, rollout: str) -> dict[int, Counter[str]]:
    """How many newest attempts are in each state, by wave."""
    newest, same = store.newest_attempts(rollout)
    wave, state = executions.c.wave, executions.c.state
    query = select(wave, state, func.count()).join(newest, same).group_by(wave, state)
    found: dict[int, Counter[str]] = {}
    for number, name, count in connection.execute(query):
        found.setdefault(number, Counter())[name] = count
    return found


def _previous_version(connection: Connection, row: Document) -> str | None:
    query = select(releases.c.version).where(
        releases.c.model == row["model"], releases.c.sequence == row["previous_sequence"]
    )
    return connection.scalar(query)
