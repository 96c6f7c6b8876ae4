"""What people ask of rollouts: preview, create, command, and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, desc, func, insert, select

from controller import audit
from controller.database import writing
from controller.errors import ConflictError, NotFoundError
from controller.ingest.write import upsert
from controller.releases import get_release
from controller.rollouts import store
from controller.rollouts.commands import decide
from controller.rollouts.evidence import what_a_canary_finds
from controller.rollouts.selector import matches, parse_selector
from controller.rollouts.states import (
    ACTIVE_ROLLOUT,
    BAD,
    FINAL_ROLLOUT,
    UNDER_WAY,
    VERBS,
    ExecutionState,
    RolloutState,
    WaveState,
)
from controller.rollouts.values import (
    SetRollout,
    Specification,
)
from controller.rollouts.waves import cut_waves, draw_order
from controller.schema import (
    device_models,
    devices,
    executions,
    releases,
    rollouts,
    settings,
    waves,
)
from controller.services import Services
from shoal.compatibility import choose_variant
from shoal.errors import InvalidInputError
from shoal.protocol.manifest import Manifest

Document = dict[str, Any]

NUMBER = "rollout-number"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a specification would do to the fleet as it is."""

    specification: Specification
    sequence: int
    waves: list[tuple[str, list[str]]]
    excluded: list[Document]
    previous_sequence: int | None

    @property
    def size(self) -> int:
        """Devices in all waves."""
        return sum(len(members) for _, members in self.waves)


def preview(connection: Connection, specification: Specification) -> Document:
    """What `create` would do now; the draw itself depends on the rollout's name."""
    draft = make_draft(connection, "preview", specification)
    outside = _count_devices(connection) - draft.size - len(draft.excluded)
    warnings = [f"{outside} devices are not selected"] if outside else []
    if specification.waves[-1].share != 1.0:
        warnings.append("the last wave does not reach every device selected")
    detectable = _detectable(connection, specification, draft)
    blind = [what for what, least in detectable.items() if least is None]
    if blind:
        warnings.append(
            f"the first wave is too small, or too little known, to test {', '.join(blind)} for "
            "small harm; limits hold all the same"
        )
    return {
        "detectable": detectable,
        "model": specification.model,
        "version": specification.version,
        "waves": [
            {"name": name, "size": len(members), "devices": members}
            for name, members in draft.waves
        ],
        "incompatible": draft.excluded,
        "warnings": warnings,
    }


def _detectable(
    connection: Connection, specification: Specification, draft: Draft
) -> dict[str, float | None]:
    """What the first wave can show against the rest."""
    release = get_release(connection, specification.model, specification.version)
    manifest = msgspec.convert(release["manifest"], Manifest)
    first, *later = [members for _, members in draft.waves]
    control = [device for members in later for device in members]
    return what_a_canary_finds(
        connection, manifest, specification.gates or manifest.gates, first, control
    )


def create(services: Services, specification: Specification, actor: str) -> Document:
    """Store a rollout and start it unless it shall stay a draft."""
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        rollout = _next_name(connection)
        draft = make_draft(connection, rollout, specification)
        if specification.start:
            _check_free(connection, specification.model)
        _insert(connection, rollout, draft, actor, now_ms)
        audit.record(
            connection,
            now_ms,
            actor,
            "rollout.create",
            f"rollout {rollout}",
            msgspec.to_builtins(specification),
        )
        if specification.start:
            view = store.read_view(connection, rollout)
            store.carry_out(connection, view, [SetRollout(RolloutState.RUNNING, "")], now_ms)
        return get_rollout(connection, rollout)


def command(services: Services, rollout: str, verb: str, actor: str) -> Document:
    """Do what a person asks, or raise `ConflictError` saying why it cannot be done now."""
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        view = store.read_view(connection, rollout)
        actions = decide(view, verb, actor)
        if verb in ("start", "rollback"):
            _check_free(connection, view.model, but=rollout)
        if verb == "rollback":
            _check_newest(connection, rollout)
        store.carry_out(connection, view, actions, now_ms)
        audit.record(connection, now_ms, actor, f"rollout.{verb}", f"rollout {rollout}")
        return get_rollout(connection, rollout)


# Drawing


def make_draft(connection: Connection, rollout: str, specification: Specification) -> Draft:
    """Choose the devices, leave out those that cannot take the release, and cut the waves."""
    release = get_release(connection, specification.model, specification.version)
    manifest = msgspec.convert(release["manifest"], Manifest)
    terms = parse_selector(specification.selector)
    running = _running(connection, specification.model)
    fitting, excluded, before = [], [], list[int]()
    query = select(devices).where(devices.c.revoked_ms.is_(None)).order_by(devices.c.device)
    for row in connection.execute(query):
        if not matches(terms, row.device, row.site, row.profile, row.labels):
            continue
        sentence = _obstacle(manifest, row, running.get(row.device))
        if sentence:
            excluded.append({"device": row.device, "sentence": f"{row.device}: {sentence}"})
            continue
        fitting.append((row.device, row.profile))
        if runs := running.get(row.device):
            before.append(runs)
    if not fitting:
        raise InvalidInputError(
            f"rollout: selector {specification.selector!r} leaves no device that can run "
            f"{specification.model} {specification.version}"
            + "".join(f"; {one['sentence']}" for one in excluded[:3]),
            code="no-devices",
        )
    order = draw_order(rollout, fitting)
    names = [wave.name for wave in specification.waves]
    cut = cut_waves(specification.waves, order)
    common = max(set(before), key=before.count) if before else None
    return Draft(
        specification, release["sequence"], list(zip(names, cut, strict=True)), excluded, common
    )


def _obstacle(manifest: Manifest, row: Any, runs: int | None) -> str:
    variant, gaps = choose_variant(manifest, row.facts)
    if variant is None:
        return "; ".join(map(str, gaps))
    if runs is not None and runs > manifest.sequence:
        return f"runs release {runs}, which is newer than {manifest.sequence}"
    return ""


def _running(connection: Connection, model: str) -> dict[str, int]:
    query = select(device_models.c.device, device_models.c.active_sequence).where(
        device_models.c.model == model, device_models.c.active_sequence.is_not(None)
    )
    return {row.device: row.active_sequence for row in connection.execute(query)}


def _count_devices(connection: Connection) -> int:
    query = select(func.count()).select_from(devices).where(devices.c.revoked_ms.is_(None))
    return connection.scalar(query) or 0


def _check_free(connection: Connection, model: str, but: str = "") -> None:
    query = select(rollouts.c.rollout).where(
        rollouts.c.model == model,
        rollouts.c.state.in_(ACTIVE_ROLLOUT),
        rollouts.c.rollout != but,
    )
    other = connection.scalar(query)
    if other is not None:
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


def _next_name(connection: Connection) -> str:
    query = select(settings.c.value).where(settings.c.key == NUMBER)
    number = (connection.scalar(query) or 0) + 1
    upsert(connection, settings, {"key": NUMBER}, {"value": number})
    return f"r-{number}"


def _insert(connection: Connection, rollout: str, draft: Draft, actor: str, now_ms: int) -> None:
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
    for number, (name, members) in enumerate(draft.waves, start=1):
        connection.execute(
            insert(waves).values(
                rollout=rollout,
                number=number,
                name=name,
                state=WaveState.PENDING,
                size=len(members),
                gates=[],
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
            for device in members
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


def list_executions(connection: Connection, rollout: str) -> list[Document]:
    """The newest attempt of each device."""
    get_rollout(connection, rollout)
    newest, same = store.newest_attempts(rollout)
    query = select(executions).join(newest, same)
    rows = connection.execute(query.order_by(executions.c.wave, executions.c.device))
    return [dict(row) for row in rows.mappings()]


def _document(connection: Connection, row: Document) -> Document:
    found = list_states(connection, row["rollout"])
    query = select(waves).where(waves.c.rollout == row["rollout"]).order_by(waves.c.number)
    row["waves"] = [
        _wave_document(dict(wave), found.get(wave["number"], []))
        for wave in connection.execute(query).mappings()
    ]
    row["previous_version"] = _previous_version(connection, row)
    row["verbs"] = [verb for verb, states in VERBS.items() if row["state"] in states]
    return row


def _wave_document(wave: Document, states: list[str]) -> Document:
    wave.pop("rollout")
    wave["done"] = states.count(ExecutionState.SUCCEEDED)
    wave["failed"] = sum(state in BAD for state in states)
    wave["under_way"] = sum(state in UNDER_WAY for state in states)
    wave["lost"] = states.count(ExecutionState.TIMED_OUT)
    return wave


def list_states(connection: Connection, rollout: str) -> dict[int, list[str]]:
    """States of the newest attempts, by wave."""
    newest, same = store.newest_attempts(rollout)
    query = select(executions.c.wave, executions.c.state).join(newest, same)
    found: dict[int, list[str]] = {}
    for wave, state in connection.execute(query):
        found.setdefault(wave, []).append(state)
    return found


def _previous_version(connection: Connection, row: Document) -> str | None:
    query = select(releases.c.version).where(
        releases.c.model == row["model"], releases.c.sequence == row["previous_sequence"]
    )
    return connection.scalar(query)
