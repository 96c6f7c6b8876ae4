"""Sign-off: another person agrees to what an alias shall point at, or refuses it.

The rule is pure (`outcome`); nobody decides about what they asked for themselves, by whatever
token they asked.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert

from controller.database import writing
from controller.errors import ConflictError, ForbiddenError
from controller.people.another import is_own
from controller.people.person import Person
from controller.registry import aliases
from controller.releases import check_released
from controller.schema import alias_decisions
from controller.services import Services
from shoal.errors import InvalidInputError

Document = dict[str, Any]

APPROVE, REJECT, WITHDRAW = "approve", "reject", "withdraw"
VERBS = (APPROVE, REJECT, WITHDRAW)


def outcome(needed: int, decisions: list[Document]) -> str:
    """The state of a change after these decisions. Pure.

    >>> outcome(1, []), outcome(1, [{"approved": True}]), outcome(2, [{"approved": False}])
    ('waiting', 'made', 'rejected')
    """
    if any(not one["approved"] for one in decisions):
        return aliases.REJECTED
    return aliases.MADE if len(decisions) >= needed else aliases.WAITING


def decide(
    services: Services, change: int, verb: str, person: Person, reason: str = ""
) -> Document:
    """Approve, reject or withdraw a change that waits."""
    if verb == REJECT and not reason.strip():
        raise InvalidInputError("reason: expected why it is rejected")
    now_ms = services.now_ms()
    with writing(services.engine) as connection:
        found = aliases.get_change(connection, change)
        _check_waits(found, verb)
        if verb == WITHDRAW:
            aliases.finish(connection, change, aliases.WITHDRAWN, now_ms)
        else:
            _check_person(connection, found, person)
            _keep(connection, found, verb == APPROVE, person, reason, now_ms)
        data = {"why": reason} if reason else {}
        aliases.record(connection, now_ms, person.name, f"alias.{verb}", change, data)
        return aliases.get_change(connection, change)


def _keep(
    connection: Connection,
    found: Document,
    approved: bool,
    person: Person,
    reason: str,
    now_ms: int,
) -> None:
    change = found["id"]
    values = {
        "change": change,
        "person": person.owner or person.name,
        "approved": approved,
        "reason": reason,
        "at_ms": now_ms,
    }
    connection.execute(insert(alias_decisions).values(**values))
    decisions = aliases.get_change(connection, change)["decisions"]
    after = outcome(found["approvals"], decisions)
    if after == aliases.MADE:
        if found["to_version"] is not None:  # it may have been withdrawn since
            check_released(connection, found["model"], found["to_version"])
        aliases.make(connection, change, now_ms)
    elif after == aliases.REJECTED:
        aliases.finish(connection, change, aliases.REJECTED, now_ms)


def _check_waits(found: Document, verb: str) -> None:
    if found["state"] != aliases.WAITING:
        raise ConflictError(
            f"change {found['id']} of {found['model']}@{found['alias']}: is {found['state']}, "
            f"expected waiting; it cannot {verb} any more",
            code="not-waiting",
        )


def _check_person(connection: Connection, found: Document, person: Person) -> None:
    if is_own(connection, {found["asked_by"]}, person):
        raise ForbiddenError(
            f"change {found['id']}: {person.name} has asked for it; another person decides",
            code="same-person",
        )
    if (person.owner or person.name) in {one["person"] for one in found["decisions"]}:
        raise ConflictError(
            f"change {found['id']}: {person.name} has decided already", code="decided-already"
        )
