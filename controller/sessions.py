"""Browser sessions and one-time sign-in links, both made from an API token and ending with it.

Only hashes of secrets are stored; every secret is 256 random bits, so a plain hash is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, Table, delete, insert, select

from controller import audit, schema
from controller.errors import UnauthenticatedError
from controller.schema import sign_in_links, web_sessions

TOKENS = "api-tokens"
SESSION_SECONDS = 12 * 3600
LINK_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is signed in."""

    name: str
    token_hash: str


def token_hash(token: str) -> str:
    """What is stored of a token, a session's secret or a link's."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_name(connection: Connection, hashed: str) -> str | None:
    """Whose token it is; None of an unknown one."""
    query = select(schema.settings.c.value).where(schema.settings.c.key == TOKENS)
    stored: dict[str, str] = connection.scalar(query) or {}
    return next((name for one, name in stored.items() if hmac.compare_digest(one, hashed)), None)


def find(connection: Connection, secret: str, now_ms: int) -> Session | None:
    """The session of a cookie; None when it has ended or its token is gone."""
    c = web_sessions.c
    query = select(c.token_hash).where(c.secret_hash == token_hash(secret), c.expires_ms > now_ms)
    hashed: str | None = connection.scalar(query)
    name = token_name(connection, hashed) if hashed is not None else None
    return Session(name, hashed) if name is not None and hashed is not None else None


def sign_in(connection: Connection, hashed: str, now_ms: int) -> str:
    """Start a session of a token and return its secret."""
    name = token_name(connection, hashed)
    if name is None:
        raise UnauthenticatedError("sign in: the token is not known")
    connection.execute(delete(web_sessions).where(web_sessions.c.expires_ms <= now_ms))
    secret = _insert(connection, web_sessions, hashed, now_ms + SESSION_SECONDS * 1000)
    audit.record(connection, now_ms, name, "session.start", name)
    return secret


def sign_out(connection: Connection, secret: str) -> None:
    """End a session."""
    here = web_sessions.c.secret_hash == token_hash(secret)
    connection.execute(delete(web_sessions).where(here))


def create_link(connection: Connection, hashed: str, now_ms: int) -> tuple[str, int]:
    """Make a link's secret, for the holder of a token; return it and when it expires."""
    expires_ms = now_ms + LINK_SECONDS * 1000
    connection.execute(delete(sign_in_links).where(sign_in_links.c.expires_ms <= now_ms))
    secret = _insert(connection, sign_in_links, hashed, expires_ms)
    name = token_name(connection, hashed) or ""
    audit.record(connection, now_ms, name, "sign-in-link.create", name)
    return secret, expires_ms


def use_link(connection: Connection, secret: str, now_ms: int) -> str:
    """Use a link up and return the hash of the token it stands for."""
    c = sign_in_links.c
    here = c.secret_hash == token_hash(secret)
    hashed: str | None = connection.scalar(select(c.token_hash).where(here, c.expires_ms > now_ms))
    connection.execute(delete(sign_in_links).where(here))
    if hashed is None:
        raise UnauthenticatedError("sign in: this link has been used or has expired")
    return hashed


def _insert(connection: Connection, table: Table, hashed: str, expires_ms: int) -> str:
    secret = secrets.token_urlsafe(32)
    connection.execute(
        insert(table).values(
            secret_hash=token_hash(secret), token_hash=hashed, expires_ms=expires_ms
        )
    )
    return secret
