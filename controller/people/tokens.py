"""API tokens: 256 random bits of which only the hash is stored; named, with a role and an end."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine, delete, desc, insert, select, update
from sqlalchemy.exc import OperationalError

from controller import audit
from controller.database import reading, writing
from controller.errors import ConflictError
from controller.people import directory, sessions
from controller.people.person import Person
from controller.people.roles import ADMIN
from controller.schema import api_tokens, settings
from shoal.errors import InvalidInputError

Document = dict[str, Any]

PREFIX = "shoal_"
"""Lets scanners of repositories and logs find a token that got there."""
DEFAULT_EXPIRY_SECONDS = 90 * 86400
MAX_EXPIRY_SECONDS = 5 * 365 * 86400
USE_NOTED_MS = 60_000
"""How exact the time of last use is."""
_OLD_SETTING = "api-tokens"


def make_secret() -> str:
    """A new token's text."""
    return PREFIX + secrets.token_urlsafe(32)


def store(
    connection: Connection,
    now_ms: int,
    actor: Person,
    name: str,
    role: str,
    secret: str,
    expires_ms: int | None,
) -> Document:
    """Make `secret` a token."""
    directory.check_role(role)
    directory.check_new_name(connection, "token", name)
    row = {
        "token_id": f"k-{os.urandom(6).hex()}",
        "name": name,
        "role": role,
        "owner": actor.owner,
        "created_ms": now_ms,
        "expires_ms": expires_ms,
    }
    hashed = directory.secret_hash(secret)
    connection.execute(insert(api_tokens).values(**row, token_hash=hashed))
    data = {"role": role, "name": name, "expires_ms": expires_ms}
    audit.record(
        connection, now_ms, actor.name, "api-token.create", f"api token {row['token_id']}", data
    )
    return row | {"last_used_ms": None, "revoked_ms": None}


def create(
    engine: Engine, now_ms: int, actor: Person, name: str, role: str, expires_seconds: int | None
) -> Document:
    """Make a token; its text is told only here."""
    seconds = DEFAULT_EXPIRY_SECONDS if expires_seconds is None else expires_seconds
    if not 1 <= seconds <= MAX_EXPIRY_SECONDS:
        raise InvalidInputError(f"expires_seconds: {seconds} is not between 1 and five years")
    directory.check_role(role)
    if not actor.may(role):
        raise InvalidInputError(f"role {role[:40]}: more than your own, {actor.role}")
    secret = make_secret()
    with writing(engine) as connection:
        row = store(connection, now_ms, actor, name, role, secret, now_ms + seconds * 1000)
    return row | {"token": secret}


def list_tokens(connection: Connection) -> list[Document]:
    """All tokens, newest first, without their secrets."""
    columns = [column for column in api_tokens.c if column.name != "token_hash"]
    query = select(*columns).order_by(desc(api_tokens.c.created_ms), api_tokens.c.token_id)
    return [dict(row) for row in connection.execute(query.limit(1000)).mappings()]


def revoke(engine: Engine, now_ms: int, actor: str, token_id: str) -> Document:
    """End a token, and the browsers that signed in with it."""
    here = (api_tokens.c.token_id == token_id) & api_tokens.c.revoked_ms.is_(None)
    with writing(engine) as connection:
        done = connection.execute(update(api_tokens).where(here).values(revoked_ms=now_ms))
        if not done.rowcount:
            raise ConflictError(f"api token {token_id[:80]!r}: not known, or revoked before")
        sessions.end_all(connection, f"token {token_id}")
        audit.record(connection, now_ms, actor, "api-token.revoke", f"api token {token_id}")
        return next(one for one in list_tokens(connection) if one["token_id"] == token_id)


def use(engine: Engine, secret: str, now_ms: int) -> Person | None:
    """Who holds a token; notes that it was used."""
    with reading(engine) as connection:
        person = directory.by_token(connection, secret, now_ms)
        here = api_tokens.c.token_hash == directory.secret_hash(secret)
        last: int | None = connection.scalar(select(api_tokens.c.last_used_ms).where(here))
    if person is not None and (last is None or now_ms - last >= USE_NOTED_MS):
        with suppress(OperationalError), writing(engine) as connection:  # no reason to refuse
            connection.execute(update(api_tokens).where(here).values(last_used_ms=now_ms))
    return person


def adopt_old(engine: Engine, now_ms: int) -> None:
    """Take over the tokens of a database from before there were roles: they could do everything."""
    old = settings.c.key == _OLD_SETTING
    with reading(engine) as connection:
        found: dict[str, str] | None = connection.scalar(select(settings.c.value).where(old))
    if found is None:
        return
    with writing(engine) as connection:
        for number, (hashed, name) in enumerate(found.items()):
            row = {
                "token_id": f"k-{hashed[:12]}",
                "name": name if name not in list(found.values())[:number] else f"{name}-{number}",
                "role": ADMIN,
                "owner": "",
                "token_hash": hashed,
                "created_ms": now_ms,
            }
            connection.execute(insert(api_tokens).values(**row))
        connection.execute(delete(settings).where(old))
