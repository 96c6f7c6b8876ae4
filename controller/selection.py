"""Selectors over the database: terms as SQL, and what saved names stand for.

`matching` means the same as `shoal.selector.matches`; a property test holds both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    true,
)

from controller.schema import device_models, devices, group_devices, selectors
from shoal.errors import InvalidInputError
from shoal.selector import Group, Subject, Term, Terms, group_names, parse_selector

MAX_DEPTH = 8
"""Of saved selectors that speak of others."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a selector is read, and after how much silence a device counts as offline."""

    now_ms: int
    offline_after_ms: int


def effective_status(now_ms: int, offline_after_ms: int) -> ColumnElement[str]:
    """What a device's status is now: what it says of itself, unless it is not heard any more."""
    c = devices.c
    silent = or_(c.online.is_(False), c.last_seen_ms < now_ms - offline_after_ms)
    return case((c.last_seen_ms.is_(None), "unknown"), (silent, "offline"), else_=c.status)


@dataclass(frozen=True, slots=True)
class Selection:
    """A selector with everything that it speaks of."""

    terms: Terms
    groups: Mapping[str, Group]


def read_selection(
    connection: Connection, text: str, *, bare_words: bool = False, own: str = ""
) -> Selection:
    """Parse a selector and look its groups up; `own` is the name that it will be saved under."""
    terms = parse_selector(text, bare_words=bare_words)
    groups: dict[str, Group] = {}
    layer = group_names(terms)
    for _ in range(MAX_DEPTH):
        if own in layer:
            raise InvalidInputError(
                f"selector: group:{own} contains itself", code="invalid-selector"
            )
        found = {name: _group(connection, name) for name in layer - groups.keys()}
        groups |= found
        layer = frozenset[str]().union(*(group_names(one.terms or ()) for one in found.values()))
        if not layer:
            return Selection(terms, groups)
    raise InvalidInputError(
        f"selector: groups within groups, expected at most {MAX_DEPTH} deep",
        code="invalid-selector",
    )


def matching(selection: Selection, moment: Moment) -> ColumnElement[bool]:
    """The condition that a row of `devices` fulfils where the device is meant."""
    return _all(selection.terms, selection.groups, moment)


def subjects(
    connection: Connection, selection: Selection, moment: Moment, *, with_models: bool = False
) -> list[Subject]:
    """Devices that are meant and not revoked, by name, as selectors know them.

    What they run costs another scan, which only a predicate over `model:` is worth.
    """
    c = devices.c
    status = effective_status(moment.now_ms, moment.offline_after_ms).label("state")
    query = (
        select(c.device, c.site, c.profile, c.labels, status, c.last_seen_ms)
        .where(c.revoked_ms.is_(None), matching(selection, moment))
        .order_by(c.device)
    )
    rows = connection.execute(query).all()
    models: dict[str, dict[str, str | None]] = {}
    m = device_models.c
    running = select(m.device, m.model, m.active_version)
    for device, model, version in connection.execute(running) if with_models else ():
        models.setdefault(device, {})[model] = version
    return [
        Subject(
            row.device,
            row.site,
            row.profile,
            row.labels,
            row.state,
            row.last_seen_ms,
            models.get(row.device, {}),
        )
        for row in rows
    ]


def _group(connection: Connection, name: str) -> Group:
    row = connection.execute(select(selectors).where(selectors.c.name == name)).first()
    if row is None:
        raise InvalidInputError(
            f"selector: group:{name[:80]}: no selector is saved under that name",
            code="invalid-selector",
        )
    if not row.static:
        return Group(parse_selector(row.selector))
    g = group_devices.c
    return Group(None, frozenset(connection.scalars(select(g.device).where(g.name == name))))


def _all(terms: Terms, groups: Mapping[str, Group], moment: Moment) -> ColumnElement[bool]:
    found = [_one(term, groups, moment) for term in terms]
    negated = zip(terms, found, strict=True)
    return and_(true(), *(not_(one) if term.negated else one for term, one in negated))


def _one(term: Term, groups: Mapping[str, Group], moment: Moment) -> ColumnElement[bool]:
    """A term as SQL that is never null, so that it may be negated."""
    c = devices.c
    values = sorted(term.values)
    match term.field:
        case "seen":
            return or_(*(_age(one.newer, moment.now_ms - one.milliseconds) for one in term.ages))
        case "model":
            return exists().where(
                device_models.c.device == c.device, or_(*(_runs(value) for value in values))
            )
        case "name":
            lower = func.lower(c.device)
            return or_(*(lower.contains(value, autoescape=True) for value in values))
        case "group":
            return or_(*(_group_sql(value, groups, moment) for value in values))
        case "state":
            return effective_status(moment.now_ms, moment.offline_after_ms).in_(values)
        case "device" | "site" | "profile":
            return c[term.field].in_(values)
        case _:
            label: Any = c.labels[term.field.removeprefix("label.")].as_string()
            return func.coalesce(label, "").in_(values)


def _age(newer: bool, since_ms: int) -> ColumnElement[bool]:
    seen = func.coalesce(devices.c.last_seen_ms > since_ms, false())
    return seen if newer else not_(seen)


def _runs(value: str) -> ColumnElement[bool]:
    model, _, version = value.partition("@")
    m = device_models.c
    return and_(m.model == model, m.active_version == version) if version else m.model == model


def _group_sql(name: str, groups: Mapping[str, Group], moment: Moment) -> ColumnElement[bool]:
    group = groups[name]
    if group.terms is not None:
        return _all(group.terms, groups, moment)
    g = group_devices.c
    return exists().where(g.name == name, g.device == devices.c.device)
