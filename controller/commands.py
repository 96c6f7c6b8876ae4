"""Commands to single devices: signed, expiring, and answered in parts.

A command is stored signed before it is published, and published again for a device that is online
and has not answered. It changes nothing on a device, so twice is harmless.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, and_, desc, exists, insert, select, update

from controller import audit
from controller.database import writing
from controller.errors import NotFoundError
from controller.publication import Publication
from controller.schema import commands, devices, replies
from controller.services import Services
from shoal.errors import InvalidInputError
from shoal.protocol.commands import MAX_VALID, Command, parse_order
from shoal.protocol.envelope import COMMAND_TYPE, encode_envelope
from shoal.signing import seal

Document = dict[str, Any]

DEFAULT_EXPIRY_SECONDS = 600
MAX_WAITING = 20
"""Open commands of one device."""
BATCH = 500


def create(services: Services, actor: str, device: str, body: Document) -> Document:
    """Sign and store a command: `body` is an order, with `expires_seconds` if wanted."""
    wanted = dict(body)
    seconds = wanted.pop("expires_seconds", DEFAULT_EXPIRY_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInputError(f"expires_seconds: expected a number, got {seconds!r}")
    if not 1 <= seconds <= MAX_VALID.total_seconds():
        raise InvalidInputError(f"expires_seconds: {seconds} is not between 1 and a day")
    order = parse_order(wanted)
    now = datetime.now(UTC)
    command = Command(
        device=device,
        command=f"c-{secrets.token_hex(6)}",
        issued=now,
        expires=now + timedelta(seconds=seconds),
        order=order,
    )
    envelope = encode_envelope(seal(msgspec.json.encode(command), COMMAND_TYPE, services.director))
    now_ms = services.now_ms()
    row = {
        "command": command.command,
        "device": device,
        "order": msgspec.to_builtins(order),
        "envelope": envelope,
        "created_ms": now_ms,
        "created_by": actor,
        "expires_ms": int(command.expires.timestamp() * 1000),
    }
    with writing(services.engine) as connection:
        _check_device(connection, device, now_ms)
        connection.execute(insert(commands).values(**row))
        audit.record(connection, now_ms, actor, "device.command", device, row["order"])
        document = read(connection, device, command.command, now_ms)
    services.desired_changed.ring()
    return document


def read(connection: Connection, device: str, command: str, now_ms: int) -> Document:
    """One command with its whole answer, or `NotFoundError`."""
    here = and_(commands.c.device == device, commands.c.command == command)
    row = connection.execute(select(commands).where(here)).mappings().first()
    if row is None:
        raise NotFoundError(f"device {device[:80]!r}: no command {command[:80]!r}")
    answer = _answer(connection, row)
    document = _document(row, answer, now_ms)
    if answer is not None:
        document["text"] = "".join(part["text"] for part in answer)
        document["document"] = _parsed(document["text"])
    return document


def list_of_device(connection: Connection, device: str, now_ms: int, limit: int) -> list[Document]:
    """Commands to a device, newest first, without the text of their answers."""
    query = select(commands).where(commands.c.device == device)
    found = connection.execute(query.order_by(desc(commands.c.created_ms)).limit(limit)).mappings()
    return [_document(row, _answer(connection, row), now_ms) for row in found.all()]


def find_unpublished(connection: Connection, now_ms: int) -> list[Publication]:
    """Commands that the broker does not have yet."""
    return _publications(connection, commands.c.published_ms.is_(None), now_ms)


def find_unanswered(connection: Connection, now_ms: int) -> list[Publication]:
    """Commands that an online device has not answered; a broker that was killed forgets them."""
    answered = exists().where(replies.c.command == commands.c.command)
    return _publications(connection, and_(devices.c.online.is_(True), ~answered), now_ms)


def mark_published(connection: Connection, command: str, now_ms: int) -> None:
    """The broker has it."""
    here = and_(commands.c.command == command, commands.c.published_ms.is_(None))
    connection.execute(update(commands).where(here).values(published_ms=now_ms))


def _publications(connection: Connection, here: Any, now_ms: int) -> list[Publication]:
    query = (
        select(commands, devices.c.site)
        .join(devices, devices.c.device == commands.c.device)
        .where(here, devices.c.revoked_ms.is_(None), commands.c.expires_ms > now_ms)
        .limit(BATCH)
    )
    return [
        Publication(row.device, row.site, 0, row.envelope, command=row.command)
        for row in connection.execute(query)
    ]


def _check_device(connection: Connection, device: str, now_ms: int) -> None:
    found = connection.execute(
        select(devices.c.revoked_ms).where(devices.c.device == device)
    ).first()
    if found is None or found.revoked_ms is not None:
        raise NotFoundError(f"device {device[:80]!r}: not enrolled, or revoked")
    answered = exists().where(replies.c.command == commands.c.command)
    query = select(commands.c.command).where(
        commands.c.device == device, commands.c.expires_ms > now_ms, ~answered
    )
    if len(connection.execute(query).all()) >= MAX_WAITING:
        raise InvalidInputError(
            f"device {device}: {MAX_WAITING} commands wait for an answer already",
            code="too-many-commands",
        )


def _answer(connection: Connection, row: RowMapping) -> list[RowMapping] | None:
    """All parts of the first boot's answer that is whole."""
    query = select(replies).where(
        replies.c.command == row["command"], replies.c.device == row["device"]
    )
    boots: dict[str, list[RowMapping]] = {}
    ordered = query.order_by(replies.c.received_ms, replies.c.part)
    for part in connection.execute(ordered).mappings():
        parts = boots.setdefault(part["boot_id"], [])
        parts.append(part)
        if len(parts) == part["parts"]:
            return sorted(parts, key=lambda one: int(one["part"]))
    return None


def _document(row: RowMapping, answer: list[RowMapping] | None, now_ms: int) -> Document:
    document = {key: value for key, value in row.items() if key != "envelope"}
    document["kind"] = row["order"]["kind"]
    if answer is not None:
        document["state"] = "answered" if answer[0]["ok"] else "refused"
    elif row["expires_ms"] <= now_ms:
        document["state"] = "expired"
    else:
        document["state"] = "waiting" if row["published_ms"] is None else "published"
    first = answer[0] if answer else None
    document["code"] = first["code"] if first else ""
    document["sentence"] = first["sentence"] if first else ""
    document["answered_ms"] = max(one["received_ms"] for one in answer) if answer else None
    return document


def _parsed(text: str) -> Any:
    """The answer as a document where it is one."""
    try:
        return json.loads(text)
    except ValueError:
        return None
