"""Whether something is a person's own, by whatever token they did it."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from controller.people.person import Person
from controller.schema import api_tokens


def is_own(connection: Connection, names: Collection[str], person: Person) -> bool:
    """Whether one of `names` of the audit log is this person, or a token of theirs."""
    known = set(names) - {""}
    owners = select(api_tokens.c.owner).where(api_tokens.c.name.in_(known))
    own = known | set(connection.scalars(owners)) - {""}
    return bool({person.name, person.owner} & own)
