"""How the repository stands: roles, keys, versions, ends, and what people must do soon."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select
from tuf.api.metadata import Metadata, Root, Targets

from controller.repository import store
from controller.repository.keyring import Keyring
from controller.schema import trust_metadata as table
from shoal.protocol.targets import DIRECTOR_PATH
from shoal.signing import key_id
from shoal.trust.metadata import bins_of, role_keys
from shoal.trust.roles import DIRECTOR, OFFLINE, ONLINE, ROLES, ROOT, TARGETS, WARN

Document = dict[str, Any]

NO_ROOT = "no root is published yet: shoal keys init, then shoal trust init"


def describe_status(connection: Connection, keyring: Keyring, now: datetime) -> Document:
    """Everything that people ask of it; `ready` says whether devices can follow it."""
    root = store.current(connection, ROOT, Root)
    held = {role: keyring.public_keys(role) for role in (*ONLINE, DIRECTOR)}
    document: Document = {
        "ready": root is not None,
        "roles": [],
        "bins": 0,
        "online_keys": {role: [_key(one) for one in keys] for role, keys in held.items()},
    }
    if root is not None:
        document["roles"] = [_role(connection, root, role, now, held) for role in ROLES]
        targets = store.current(connection, TARGETS, Targets)
        assert targets is not None
        document["bins"] = bins_of(targets.signed).number_of_bins
        document["director_sha256"] = targets.signed.targets[DIRECTOR_PATH].hashes["sha256"]
    document["warnings"] = _warnings(document["roles"])
    return document


def warnings_of(status: Document) -> list[str]:
    """Sentences for people: what ends soon, and what to do."""
    found: list[str] = status["warnings"]
    return found


def _role(
    connection: Connection,
    root: Metadata[Root],
    role: str,
    now: datetime,
    held: dict[str, list[bytes]],
) -> Document:
    keys = role_keys(root.signed, role)
    version, expires = _current(connection, role, root)
    left = (expires - now).total_seconds() if expires else 0.0
    state = "ok"
    if left <= 0:
        state = "expired"
    elif role in WARN and left < WARN[role].total_seconds():
        state = "ends-soon"
    elif role in ONLINE and not set(keys.keys) & set(held[role]):
        state = "no-key"
    return {
        "role": role,
        "offline": role in OFFLINE,
        "version": version,
        "threshold": keys.threshold,
        "keys": [_key(one) for one in keys.keys],
        "expires_ms": int(expires.timestamp() * 1000) if expires else 0,
        "state": state,
    }


def _current(
    connection: Connection, role: str, root: Metadata[Root]
) -> tuple[int, datetime | None]:
    """Version and end of a role; of targets, the end of whatever ends first, bins included."""
    if role == ROOT:
        return root.signed.version, root.signed.expires
    if role == TARGETS:
        found = store.current(connection, TARGETS, Targets)
        ends = _ends_of_bins(connection)
        assert found is not None
        return found.signed.version, min([found.signed.expires, *ends])
    online = store.snapshot(connection) if role == "snapshot" else store.timestamp(connection)
    return (online.signed.version, online.signed.expires) if online else (0, None)


def _ends_of_bins(connection: Connection) -> list[datetime]:
    query = select(func.min(table.c.expires_ms)).where(
        table.c.ended_ms.is_(None), table.c.role.like("bin-%")
    )
    first = connection.scalar(query)
    return [] if first is None else [datetime.fromtimestamp(first / 1000, tz=UTC)]


def _warnings(roles: list[Document]) -> list[str]:
    if not roles:
        return [NO_ROOT]
    words = {
        "expired": "has expired: devices take no new release",
        "ends-soon": "ends soon",
        "no-key": "is signed by no key that this controller holds",
    }
    found = []
    for one in roles:
        if one["state"] != "ok":
            what = "sign it with shoal trust renew" if one["offline"] else "see the log"
            day = datetime.fromtimestamp(one["expires_ms"] / 1000, tz=UTC)
            found.append(f"{one['role']} {words[one['state']]} ({day:%Y-%m-%d}): {what}")
    return found


def _key(public: bytes) -> Document:
    return {"key_id": key_id(public), "public_key": base64.b64encode(public).decode()}
