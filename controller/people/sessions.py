"""Browser sessions and one-time sign-in links; each belongs to a user or token and ends with it.

Only hashes of secrets are stored.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from sqlalchemy import Connection, Table, delete, insert, select

from controller import audit
from controller.people import directory
from controller.people.directory import secret_hash
from controller.people.person import Person
from controller.schema import browser_sessions, one_time_links

SESSION_SECONDS = 12 * 3600
LINK_SECONDS = 15 * 60


def find(connection: Connection, secret: str, now_ms: int) -> Person | None:
    """Whose session a cookie is; None when it has ended or its owner may do nothing any more."""
    c = browser_sessions.c
    query = select(c.principal).where(c.secret_hash == secret_hash(secret), c.expires_ms > now_ms)
    principal: str | None = connection.scalar(query)
    person = directory.by_principal(connection, principal, now_ms) if principal else None
    return replace(person, session=secret) if person else None


def start(connection: Connection, person: Person, now_ms: int) -> str:
    """Start a session and return its secret."""
    connection.execute(delete(browser_sessions).where(browser_sessions.c.expires_ms <= now_ms))
    expires_ms = now_ms + SESSION_SECONDS * 1000
    secret = _insert(connection, browser_sessions, person.principal, expires_ms)
    audit.record(connection, now_ms, person.name, "session.start", person.principal)
    return secret


def end(connection: Connection, secret: str) -> None:
    """End a session."""
    here = browser_sessions.c.secret_hash == secret_hash(secret)
    connection.execute(delete(browser_sessions).where(here))


def end_all(connection: Connection, principal: str) -> None:
    """End every session and link of a user or token."""
    for table in (browser_sessions, one_time_links):
        connection.execute(delete(table).where(table.c.principal == principal))


def create_link(connection: Connection, person: Person, now_ms: int) -> tuple[str, int]:
    """Make a link's secret; return it and when it expires."""
    expires_ms = now_ms + LINK_SECONDS * 1000
    connection.execute(delete(one_time_links).where(one_time_links.c.expires_ms <= now_ms))
    secret = _insert(connection, one_time_links, person.principal, expires_ms)
    audit.record(connection, now_ms, person.name, "sign-in-link.create", person.principal)
    return secret, expires_ms


def use_link(connection: Connection, secret: str, now_ms: int) -> Person | None:
    """Use a link up and return whom it signs in."""
    c = one_time_links.c
    here = c.secret_hash == secret_hash(secret)
    principal: str | None = connection.scalar(
        select(c.principal).where(here, c.expires_ms > now_ms)
    )
    connection.execute(delete(one_time_links).where(here))
    return directory.by_principal(connection, principal, now_ms) if principal else None


def _insert(connection: Connection, table: Table, principal: str, expires_ms: int) -> str:
    secret = secrets.token_urlsafe(32)
    row = {"secret_hash": secret_hash(secret), "principal": principal, "expires_ms": expires_ms}
    connection.execute(insert(table).values(**row))
    return secret
