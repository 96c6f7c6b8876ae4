"""Saved selectors and static groups: what `group:NAME` stands for, kept by people."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from controller import audit
from controller.database import writing
from controller.errors import ConflictError, NotFoundError
from controller.ingest.write import upsert
from controller.releases import get_release
from controller.schema import devices, group_devices, selectors
from controller.selection import Moment, Selection, matching, read_selection, subjects
from controller.services import Services
from shoal.compatibility import choose_variant
from shoal.errors import InvalidInputError
from shoal.ids import NAME_PATTERN
from shoal.protocol.manifest import Manifest
from shoal.selector import Subject, group_names, parse_selector

Document = dict[str, Any]

Form = TypeVar("Form")

MAX_LISTED = 1000


class Saved(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What people send to save a selector."""

    selector: str
    static: bool = False
    """Keep the devices that match now, whatever becomes of them."""
    note: str = ""


class Asked(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What people send to see what a selector means."""

    selector: str
    model: str | None = None
    version: str | None = None


def moment(services: Services) -> Moment:
    """Now."""
    return Moment(services.now_ms(), services.offline_after_ms)


def save(services: Services, name: str, body: Any, actor: str) -> Document:
    """Save a selector under a name, or change it; a static group takes its devices now."""
    saved = _convert(body, Saved)
    if not re.match(NAME_PATTERN + r"\Z", name):
        raise InvalidInputError(
            f"selector {name[:80]!r}: expected a name of a-z, 0-9 and -, at most 63 characters",
            code="invalid-name",
        )
    now = moment(services)
    with writing(services.engine) as connection:
        selection = read_selection(connection, saved.selector, own=name)
        members = _members(connection, selection, now) if saved.static else []
        values = {
            "selector": saved.selector.strip(),
            "static": saved.static,
            "note": saved.note[:200],
            "updated_ms": now.now_ms,
            "updated_by": actor,
        }
        upsert(connection, selectors, {"name": name}, values)
        connection.execute(delete(group_devices).where(group_devices.c.name == name))
        if members:
            rows = [{"name": name, "device": device} for device in members]
            connection.execute(insert(group_devices), rows)
        data = msgspec.to_builtins(saved) | {"devices": len(members)}
        audit.record(connection, now.now_ms, actor, "selector.save", f"selector {name}", data)
        return get(connection, name, now)


def remove(services: Services, name: str, actor: str) -> None:
    """Forget a saved selector that no other speaks of."""
    now = moment(services)
    with writing(services.engine) as connection:
        get(connection, name, now)
        c = selectors.c
        for row in connection.execute(select(c.name, c.selector).where(c.static.is_(False))):
            if name in group_names(parse_selector(row.selector)):
                raise ConflictError(
                    f"selector {name}: {row.name} ({row.selector}) speaks of it", code="in-use"
                )
        connection.execute(delete(group_devices).where(group_devices.c.name == name))
        connection.execute(delete(selectors).where(c.name == name))
        audit.record(connection, now.now_ms, actor, "selector.remove", f"selector {name}")


def list_saved(connection: Connection, now: Moment) -> list[Document]:
    """All saved selectors by name, with how many devices each means now."""
    rows = connection.execute(select(selectors).order_by(selectors.c.name)).mappings()
    return [_document(connection, dict(row), now) for row in rows]


def get(connection: Connection, name: str, now: Moment) -> Document:
    """One saved selector."""
    query = select(selectors).where(selectors.c.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(f"selector {name[:80]!r}: no selector is saved under that name")
    return _document(connection, dict(row), now)


def preview(connection: Connection, now: Moment, body: Any) -> Document:
    """Which devices a selector means, which are not there, and which cannot take a release."""
    asked = _convert(body, Asked)
    if (asked.model is None) != (asked.version is None):
        raise InvalidInputError("selector: expected both model and version, or neither")
    selection = read_selection(connection, asked.selector)
    found = subjects(connection, selection, now)
    incompatible: list[Document] = []
    if asked.model is not None and asked.version is not None:
        incompatible = _incompatible(connection, asked.model, asked.version, found)
    states, sites = dict[str, int](), dict[str, int]()
    for one in found:
        states[one.state] = states.get(one.state, 0) + 1
        sites[one.site] = sites.get(one.site, 0) + 1
    return {
        "selector": asked.selector,
        "matched": len(found),
        "of": connection.scalar(
            select(func.count()).select_from(devices).where(devices.c.revoked_ms.is_(None))
        ),
        "states": states,
        "sites": sites,
        "devices": [one.device for one in found[:MAX_LISTED]],
        "offline": [unreached(one, now.now_ms) for one in found if not is_there(one)][:MAX_LISTED],
        "incompatible": incompatible[:MAX_LISTED],
    }


def is_there(one: Subject) -> bool:
    """Whether a device is heard of now."""
    return one.state not in ("offline", "unknown")


def unreached(one: Subject, now_ms: int) -> Document:
    """Why a device cannot be reached, in words."""
    if one.last_seen_ms is None:
        words = "enrolled, but never heard of"
    else:
        words = f"offline, last heard {(now_ms - one.last_seen_ms) // 1000} s ago"
    return {"device": one.device, "sentence": f"{one.device}: {words}"}


def _incompatible(
    connection: Connection, model: str, version: str, found: list[Subject]
) -> list[Document]:
    manifest = msgspec.convert(get_release(connection, model, version)["manifest"], Manifest)
    wanted = {one.device for one in found}
    refused = []
    query = select(devices.c.device, devices.c.facts).order_by(devices.c.device)
    for device, facts in connection.execute(query):
        if device in wanted:
            variant, gaps = choose_variant(manifest, facts)
            if variant is None:
                sentence = f"{device}: {'; '.join(map(str, gaps))}"
                refused.append({"device": device, "sentence": sentence})
    return refused


def _members(connection: Connection, selection: Selection, now: Moment) -> list[str]:
    return [one.device for one in subjects(connection, selection, now)]


def _document(connection: Connection, row: Document, now: Moment) -> Document:
    name = row["name"]
    selection = read_selection(connection, f"group:{name}")
    query = select(func.count()).select_from(devices).where(devices.c.revoked_ms.is_(None))
    row["matched"] = connection.scalar(query.where(matching(selection, now)))
    return row


def _convert(body: Any, form: type[Form]) -> Form:
    try:
        return msgspec.convert(body, form)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"selector: {error}", code="invalid-selector") from error
