"""Aliases: where a name points now, every move of it, and what a reference means.

    change = move(services, "weather", "champion", "2.0.0", person, "beats 1.0.0 on March")

A move that needs no sign-off is made at once; another one waits (`signoff`). One move of an alias
waits at a time: a newer request takes the place of the older.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, desc, insert, select, update
from sqlalchemy import delete as sql_delete

from controller import audit
from controller.database import writing
from controller.errors import ConflictError, NotFoundError
from controller.ingest.write import upsert
from controller.people.person import Person
from controller.releases import PENDING, RELEASED, get_release
from controller.schema import alias_changes, alias_decisions, aliases, releases
from controller.services import Services
from shoal.errors import InvalidInputError
from shoal.ids import is_name

Document = dict[str, Any]

WAITING, MADE, REJECTED, WITHDRAWN = "waiting", "made", "rejected", "withdrawn"
MAX_REASON = 400
NOT_ASKED = object()
"""A person said nothing about where the alias points."""


@dataclass(frozen=True, slots=True)
class Move:
    """What a person asks for. `version` None takes the alias away."""

    model: str
    alias: str
    version: str | None
    reason: str = ""
    expect: Any = NOT_ASKED
    """The version it is seen to point at, None for none; refused where it is another."""


def move(services: Services, wanted: Move, person: Person) -> Document:
    """Point an alias at a release, or ask for it where others must agree first."""
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        _check_names(connection, wanted)
        found = _find(connection, wanted.model, wanted.alias)
        _check_expected(wanted, found)
        needed = services.settings.registry.approvals_for(wanted.alias)
        target = None
        if wanted.version is not None:
            target = _check_target(connection, wanted, released=needed > 0)
        elif found is None:
            raise NotFoundError(f"alias {wanted.model}@{wanted.alias}: points at no release")
        _give_way(connection, wanted, person, now_ms)
        row = {
            "model": wanted.model,
            "alias": wanted.alias,
            "state": WAITING,
            "from_sequence": found["release_sequence"] if found else None,
            "from_version": found["version"] if found else None,
            "to_sequence": target["sequence"] if target else None,
            "to_version": wanted.version,
            "reason": wanted.reason,
            "approvals": needed,
            "asked_ms": now_ms,
            "asked_by": person.name,
        }
        change: int = connection.execute(
            insert(alias_changes).values(**row).returning(alias_changes.c.id)
        ).scalar_one()
        record(connection, now_ms, person.name, "alias.ask" if needed else "alias.set", change)
        if not needed:
            make(connection, change, now_ms)
        return get_change(connection, change)


def make(connection: Connection, change: int, now_ms: int) -> None:
    """Let the alias point where a change says."""
    row = _row(connection, change)
    key = {"model": row["model"], "alias": row["alias"]}
    if row["to_sequence"] is None:
        here = (aliases.c.model == row["model"]) & (aliases.c.alias == row["alias"])
        connection.execute(sql_delete(aliases).where(here))
    else:
        values = {
            "release_sequence": row["to_sequence"],
            "version": row["to_version"],
            "set_ms": now_ms,
            "set_by": row["asked_by"],
            "change": change,
        }
        upsert(connection, aliases, key, values)
    finish(connection, change, MADE, now_ms)


def finish(connection: Connection, change: int, state: str, now_ms: int) -> None:
    """Nothing happens to a change any more."""
    here = alias_changes.c.id == change
    connection.execute(update(alias_changes).where(here).values(state=state, decided_ms=now_ms))


def record(
    connection: Connection,
    now_ms: int,
    actor: str,
    action: str,
    change: int,
    more: Document | None = None,
) -> None:
    """Tell the audit log of a change."""
    row = _row(connection, change)
    data = {"change": change, "from": row["from_version"], "to": row["to_version"]}
    data |= {"reason": row["reason"]} | (more or {})
    audit.record(connection, now_ms, actor, action, f"alias {row['model']}@{row['alias']}", data)


# Reading


def list_aliases(connection: Connection, model: str | None = None) -> list[Document]:
    """Where every alias points, of one model or of all; by name."""
    query = select(aliases).order_by(aliases.c.model, aliases.c.alias)
    if model is not None:
        query = query.where(aliases.c.model == model)
    return [dict(row) for row in connection.execute(query).mappings()]


def aliases_of(connection: Connection, model: str) -> dict[str, list[str]]:
    """The aliases of each version of a model that has any: for pages and lists."""
    found: dict[str, list[str]] = {}
    for row in list_aliases(connection, model):
        found.setdefault(row["version"], []).append(row["alias"])
    return found


def list_changes(
    connection: Connection,
    *,
    model: str | None = None,
    alias: str | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 200,
) -> list[Document]:
    """Moves of aliases, the newest first; those before change `before`."""
    c = alias_changes.c
    query = select(alias_changes).order_by(desc(c.id)).limit(limit)
    for column, value in ((c.model, model), (c.alias, alias), (c.state, state)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(c.id < before)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    given = _decisions(connection, [row["id"] for row in rows])
    return [row | {"decisions": given.get(row["id"], [])} for row in rows]


def get_change(connection: Connection, change: int) -> Document:
    """One move, with who agreed to it or did not."""
    return _row(connection, change) | {
        "decisions": _decisions(connection, [change]).get(change, [])
    }


def resolve(connection: Connection, model: str, reference: str) -> str:
    """The version that a version or an alias means; raises where it means none."""
    here = (releases.c.model == model) & (releases.c.version == reference)
    if connection.scalar(select(releases.c.version).where(here)) is not None:
        return reference
    if (found := _find(connection, model, reference)) is not None:
        return str(found["version"])
    raise NotFoundError(
        f"{model[:80]}@{reference[:40]}: no release of the model has this version, and no alias "
        "this name"
    )


def resolve_specification(connection: Connection, document: Any) -> Any:
    """A rollout's `model` may say MODEL@ALIAS or MODEL@VERSION: the release it means now.

    What it was is kept as `resolved_from`; nobody else sets that.
    """
    if not isinstance(document, dict):
        return document
    document = {name: value for name, value in document.items() if name != "resolved_from"}
    model, version = document.get("model"), document.get("version")
    if not isinstance(model, str) or "@" not in model:
        return document
    name, _, reference = model.partition("@")
    if version not in (None, ""):
        raise InvalidInputError(
            f"rollout: model {model[:80]!r} names the release already, and version "
            f"{str(version)[:40]!r} names one, too",
            code="invalid-rollout",
        )
    if not is_name(name):
        raise InvalidInputError(f"rollout: model {model[:80]!r}: expected MODEL@ALIAS")
    found = resolve(connection, name, reference)
    kept = {} if found == reference else {"resolved_from": model}
    return document | {"model": name, "version": found} | kept


def _find(connection: Connection, model: str, alias: str) -> Document | None:
    here = (aliases.c.model == model) & (aliases.c.alias == alias)
    row = connection.execute(select(aliases).where(here)).mappings().first()
    return None if row is None else dict(row)


def _row(connection: Connection, change: int) -> Document:
    query = select(alias_changes).where(alias_changes.c.id == change)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"change {change} of an alias: there is none")
    return dict(row)


def _decisions(connection: Connection, changes: list[int]) -> dict[int, list[Document]]:
    c = alias_decisions.c
    query = select(alias_decisions).where(c.change.in_(changes)).order_by(c.at_ms, c.person)
    found: dict[int, list[Document]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["change"], []).append(
            {name: row[name] for name in ("person", "approved", "reason", "at_ms")}
        )
    return found


# What is refused


def _check_names(connection: Connection, wanted: Move) -> None:
    if not is_name(wanted.alias):
        raise InvalidInputError(
            f"alias {wanted.alias[:80]!r}: expected a-z, 0-9 and '-', at most 63 characters"
        )
    here = (releases.c.model == wanted.model) & (releases.c.version == wanted.alias)
    if connection.scalar(select(releases.c.version).where(here)) is not None:
        raise ConflictError(
            f"alias {wanted.model}@{wanted.alias}: a release has this version; take another name",
            code="alias-is-a-version",
        )


def _check_expected(wanted: Move, found: Document | None) -> None:
    points_at = found["version"] if found else None
    if wanted.expect is not NOT_ASKED and wanted.expect != points_at:
        raise ConflictError(
            f"alias {wanted.model}@{wanted.alias}: expected it to point at "
            f"{wanted.expect or 'nothing'}, it points at {points_at or 'nothing'}",
            code="alias-moved",
        )
    if found and wanted.version == points_at:
        raise ConflictError(
            f"alias {wanted.model}@{wanted.alias}: points at {points_at} already",
            code="alias-unchanged",
        )


def _check_target(connection: Connection, wanted: Move, *, released: bool) -> Document:
    release = get_release(connection, wanted.model, str(wanted.version))
    allowed = (RELEASED,) if released else (RELEASED, PENDING)
    if release["state"] not in allowed:
        raise ConflictError(
            f"alias {wanted.model}@{wanted.alias}: release {wanted.version} is "
            f"{release['state'].replace('-', ' ')}, expected {' or '.join(allowed)}",
            code="not-released",
        )
    return release


def _give_way(connection: Connection, wanted: Move, person: Person, now_ms: int) -> None:
    """What waited for this alias is withdrawn by the newer request."""
    waiting = list_changes(connection, model=wanted.model, alias=wanted.alias, state=WAITING)
    for one in waiting:
        finish(connection, one["id"], WITHDRAWN, now_ms)
        record(connection, now_ms, person.name, "alias.withdraw", one["id"])
