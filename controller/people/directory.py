"""Finding people: the user or token behind a principal, a token's text, or a name.

A token acts with its own role, and never with more than the user who made it has now; it ends with
that user's account.
"""

from __future__ import annotations

import hashlib
import re

from sqlalchemy import Connection, RowMapping, select

from controller.errors import ConflictError
from controller.people.person import RESERVED, Person
from controller.people.roles import GRANTED_ROLES, lower
from controller.schema import api_tokens, users
from shoal.errors import InvalidInputError

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,62}\Z")


def secret_hash(secret: str) -> str:
    """What is stored of a secret of ours; each has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def by_token(connection: Connection, secret: str, now_ms: int) -> Person | None:
    """Who holds a token; None of one that is unknown, revoked or expired."""
    found = api_tokens.c.token_hash == secret_hash(secret)
    row = connection.execute(select(api_tokens).where(found)).mappings().first()
    return _holder(connection, row, now_ms) if row else None


def by_principal(connection: Connection, principal: str, now_ms: int) -> Person | None:
    """Who a session or a link belongs to; None once they may do nothing any more."""
    kind, _, key = principal.partition(" ")
    if kind == "token":
        here = api_tokens.c.token_id == key
        row = connection.execute(select(api_tokens).where(here)).mappings().first()
        return _holder(connection, row, now_ms) if row else None
    row = active_user(connection, key)
    return Person(key, row["role"], principal, key) if row else None


def active_user(connection: Connection, name: str) -> RowMapping | None:
    """A user's row, unless the account is disabled."""
    here = (users.c.name == name) & users.c.disabled_ms.is_(None)
    return connection.execute(select(users).where(here)).mappings().first()


def _holder(connection: Connection, row: RowMapping, now_ms: int) -> Person | None:
    expired = row["expires_ms"] is not None and row["expires_ms"] <= now_ms
    if row["revoked_ms"] is not None or expired:
        return None
    role, owner = row["role"], row["owner"]
    if owner:
        user = active_user(connection, owner)
        if user is None:
            return None
        role = lower(role, user["role"])
    return Person(row["name"], role, f"token {row['token_id']}", owner)


def check_new_name(connection: Connection, what: str, name: str) -> None:
    """Raise unless `name` can be a new user or token: the audit log shows nothing but the name."""
    if not _NAME.match(name):
        raise InvalidInputError(
            f"{what} {name[:80]!r}: expected 1 to 63 of a-z, 0-9 and '.', '_', '@', '+', '-', "
            "not a sign first"
        )
    live = (api_tokens.c.name == name) & api_tokens.c.revoked_ms.is_(None)
    taken = (
        name in RESERVED
        or connection.scalar(select(users.c.name).where(users.c.name == name))
        or connection.scalar(select(api_tokens.c.name).where(live))
    )
    if taken:
        raise ConflictError(f"{what} {name}: the name is taken", code="name-taken")


def check_role(role: str) -> None:
    """Raise unless a user or token can have it."""
    if role not in GRANTED_ROLES:
        raise InvalidInputError(
            f"role {role[:40]!r}: expected one of {', '.join(GRANTED_ROLES)}", code="unknown-role"
        )
