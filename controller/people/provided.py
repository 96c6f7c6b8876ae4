"""Users whose provider vouches for them: found by issuer and subject, never by name alone."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, insert, select, update

from controller import audit
from controller.config import OidcSettings
from controller.database import writing
from controller.errors import ForbiddenError
from controller.people import directory
from controller.people.begun import Claims
from controller.people.person import ANONYMOUS, Person
from controller.people.roles import ROLES
from controller.schema import users


def role_for(settings: OidcSettings, groups: list[str]) -> str:
    """The highest role that the groups give, else the default; "" for none.

    >>> role_for(OidcSettings(roles={"ops": "operator", "all": "viewer"}), ["all", "ops"])
    'operator'
    """
    given = [settings.roles[group] for group in groups if group in settings.roles]
    return max(given, key=ROLES.index, default=settings.default_role)


def sign_in(
    engine: Engine, settings: OidcSettings, claims: Claims, now_ms: int, address: str
) -> Person:
    """The person behind the claims; a new one becomes a user, the role follows the groups."""
    role = role_for(settings, claims.groups)
    with writing(engine) as connection:
        name = _known(connection, claims)
        if role and name is None:
            name = _add(connection, claims, role, now_ms)
        row = directory.active_user(connection, name) if role and name else None
        if row is None:
            data = {"issuer": claims.issuer, "address": address[:80]}
            subject = f"user {name}" if name else "a stranger"
            audit.record(connection, now_ms, ANONYMOUS, "sign-in.refuse", subject, data)
        else:
            _follow(connection, row["name"], row["role"], role, now_ms)
    if row is None and not role:
        raise ForbiddenError(
            f"sign in: {settings.name} knows {claims.name[:80]}, but none of their groups "
            f"({', '.join(claims.groups)[:200] or 'none'}) has a role here",
            code="no-role",
        )
    if row is None:
        raise ForbiddenError(f"sign in: the account of {name} is disabled", code="disabled")
    return Person(row["name"], role, f"user {row['name']}", row["name"])


def _known(connection: Connection, claims: Claims) -> str | None:
    here = (users.c.issuer == claims.issuer) & (users.c.subject == claims.subject)
    found: str | None = connection.scalar(select(users.c.name).where(here))
    return found


def _add(connection: Connection, claims: Claims, role: str, now_ms: int) -> str:
    directory.check_new_name(connection, "user", claims.name)
    row = {
        "name": claims.name,
        "role": role,
        "password_hash": "",  # no password fits
        "created_ms": now_ms,
        "created_by": claims.issuer[:80],
        "password_ms": now_ms,
        "issuer": claims.issuer,
        "subject": claims.subject,
    }
    connection.execute(insert(users).values(**row))
    data = {"role": role, "issuer": claims.issuer}
    audit.record(connection, now_ms, claims.name, "user.add", f"user {claims.name}", data)
    return claims.name


def _follow(connection: Connection, name: str, before: str, role: str, now_ms: int) -> None:
    values = {"last_sign_in_ms": now_ms, "role": role}
    connection.execute(update(users).where(users.c.name == name).values(**values))
    if role != before:
        audit.record(connection, now_ms, name, "user.role", f"user {name}", {"role": role})
