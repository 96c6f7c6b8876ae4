"""Local users: adding, changing, disabling, and signing in with a password."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from controller import audit
from controller.database import reading, writing
from controller.errors import ConflictError, NotFoundError, UnauthenticatedError
from controller.people import attempts, directory, passwords, sessions
from controller.people.person import ANONYMOUS, Person
from controller.schema import users
from shoal.errors import InvalidInputError

Document = dict[str, Any]


def add(engine: Engine, actor: str, now_ms: int, name: str, role: str, password: str) -> Document:
    """Add a user."""
    directory.check_role(role)
    hashed = passwords.make_hash(password, name)
    row = {
        "name": name,
        "role": role,
        "created_ms": now_ms,
        "created_by": actor,
        "password_ms": now_ms,
    }
    with writing(engine) as connection:
        directory.check_new_name(connection, "user", name)
        connection.execute(insert(users).values(**row, password_hash=hashed))
        audit.record(connection, now_ms, actor, "user.add", f"user {name}", {"role": role})
        return read(connection, name)


def list_users(connection: Connection) -> list[Document]:
    """All users by name, without their passwords."""
    columns = [column for column in users.c if column.name != "password_hash"]
    query = select(*columns).order_by(users.c.name)
    return [dict(row) for row in connection.execute(query).mappings()]


def read(connection: Connection, name: str) -> Document:
    """One user."""
    found = next((one for one in list_users(connection) if one["name"] == name), None)
    if found is None:
        raise NotFoundError(f"user {name[:80]!r}: there is none of this name")
    return found


def change(
    engine: Engine,
    actor: str,
    now_ms: int,
    name: str,
    *,
    role: str | None = None,
    disabled: bool | None = None,
    password: str | None = None,
) -> Document:
    """Change what is given; a new password or a disabled account ends all its sessions."""
    if role is None and disabled is None and password is None:
        raise InvalidInputError("user: expected at least one of role, disabled, password")
    values: Document = {}
    if role is not None:
        directory.check_role(role)
        values["role"] = role
    if disabled is not None:
        values["disabled_ms"] = now_ms if disabled else None
    if password is not None:
        values |= {"password_hash": passwords.make_hash(password, name), "password_ms": now_ms}
    with writing(engine) as connection:
        before = read(connection, name)
        if before["issuer"] and (role is not None or password is not None):
            raise ConflictError(
                f"user {name}: {before['issuer']} vouches for them; change their groups there",
                code="provided",
            )
        connection.execute(update(users).where(users.c.name == name).values(**values))
        if password is not None or disabled:
            sessions.end_all(connection, f"user {name}")
        for action, data in _said(role, disabled, password):
            audit.record(connection, now_ms, actor, action, f"user {name}", data)
        return read(connection, name)


def _said(
    role: str | None, disabled: bool | None, password: str | None
) -> list[tuple[str, Document]]:
    found: list[tuple[str, Document]] = []
    if role is not None:
        found.append(("user.role", {"role": role}))
    if disabled is not None:
        found.append(("user.disable" if disabled else "user.enable", {}))
    if password is not None:
        found.append(("user.password", {}))
    return found


def check_password(engine: Engine, now_ms: int, name: str, password: str, address: str) -> Person:
    """Who signs in. Unknown names, disabled accounts and wrong passwords look all the same."""
    with writing(engine) as connection:
        attempts.take(connection, name, address, now_ms)
    with reading(engine) as connection:
        row = directory.active_user(connection, name)
    holds = passwords.verify(row["password_hash"] if row else None, password)
    with writing(engine) as connection:
        if row is None or not holds:
            _refuse(connection, now_ms, name, address)
        else:
            _welcome(connection, now_ms, name, row["password_hash"], password)
    if row is None or not holds:
        raise UnauthenticatedError("sign in: the name or the password is wrong")
    return Person(name, row["role"], f"user {name}", name)


def _refuse(connection: Connection, now_ms: int, name: str, address: str) -> None:
    """People type passwords into the wrong field, so only names that exist are written down."""
    known = connection.scalar(select(users.c.name).where(users.c.name == name))
    subject = f"user {known}" if known else "an unknown name"
    audit.record(
        connection, now_ms, ANONYMOUS, "sign-in.refuse", subject, {"address": address[:80]}
    )


def _welcome(connection: Connection, now_ms: int, name: str, stored: str, password: str) -> None:
    attempts.forgive(connection, name)
    values: Document = {"last_sign_in_ms": now_ms}
    if passwords.outdated(stored):
        values["password_hash"] = passwords.make_hash(password, name)
    connection.execute(update(users).where(users.c.name == name).values(**values))
