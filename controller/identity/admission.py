"""Devices without a token: those an operator has announced come in, others wait to be let in.

Known by the fingerprint of their key. Who waits is bounded, and who gives up is forgotten.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update

from controller import audit
from controller.database import writing
from controller.errors import ConflictError, ForbiddenError, NotFoundError, UnavailableError
from controller.schema import admissions as table
from controller.schema import devices
from controller.services import Services
from shoal.errors import InvalidInputError
from shoal.ids import is_name
from shoal.protocol.desired import EnrolmentRequest
from shoal.signing import KeyVerifier, PublicKey, key_id

Document = dict[str, Any]

PENDING, APPROVED, REJECTED = "pending", "approved", "rejected"
FORGET_MS = 24 * 3600 * 1000
"""Who has not asked for a day does not wait any more; a refusal is remembered as long."""
MAX_FACTS_BYTES = 8192
MIN_PREFIX = 8
MAX_PER_ADDRESS = 50


def ask(
    services: Services, request: EnrolmentRequest, key: PublicKey, address: str
) -> RowMapping | None:
    """The operator's approval of this device, or None while it waits; raises if it was refused."""
    now_ms, fingerprint = services.now_ms(), key_id(key)
    _check_words(request)
    with writing(services.engine) as connection:
        _forget(connection, now_ms)
        c = table.c
        row = connection.execute(select(table).where(c.fingerprint == fingerprint)).mappings()
        found = row.first()
        if found is None:
            _check_room(services, connection, request, address)
            values = _waiting(request, key, address) | {"asked_ms": now_ms, "seen_ms": now_ms}
            connection.execute(insert(table).values(**values))
            subject, data = f"device {request.device}", {"fingerprint": fingerprint}
            audit.record(
                connection, now_ms, f"device {request.device}", "device.ask", subject, data
            )
            return None
        here = c.fingerprint == fingerprint
        connection.execute(update(table).where(here).values(seen_ms=now_ms))
    if found["state"] == REJECTED:
        raise ForbiddenError(f"device {request.device}: an operator refused it", code="rejected")
    for what, said in (("device", request.device), ("site", request.site)):
        if found[what] not in (None, said):  # or an operator would approve one and let in another
            raise ForbiddenError(
                f"enrolment: this key asked for {what} {found[what]}, not {said}",
                code="admission-bound",
            )
    return None if found["state"] == PENDING else found


def preauthorise(
    services: Services,
    actor: str,
    key: PublicKey,
    *,
    device: str,
    site: str | None,
    labels: dict[str, str],
) -> Document:
    """Let the device that holds this key in, once, when it comes."""
    for what, name in (("device", device), ("site", site)):
        if name is not None and not is_name(name):
            raise InvalidInputError(f"{what} {name[:80]!r}: expected a-z, 0-9 and '-'")
    KeyVerifier([key])
    now_ms, fingerprint = services.now_ms(), key_id(key)
    values = {
        "fingerprint": fingerprint,
        "public_key": key,
        "device": device,
        "site": site,
        "labels": labels,
        "state": APPROVED,
        "decided_ms": now_ms,
        "decided_by": actor,
    }
    with writing(services.engine) as connection:
        connection.execute(delete(table).where(table.c.fingerprint == fingerprint))
        connection.execute(insert(table).values(**values))
        data = {"fingerprint": fingerprint, "site": site}
        subject = f"device {device}"
        audit.record(connection, now_ms, actor, "device.preauthorise", subject, data)
    return {"device": device, "site": site, "fingerprint": fingerprint, "state": APPROVED}


def decide(
    services: Services, actor: str, wanted: str, *, approve: bool, labels: dict[str, str]
) -> Document:
    """Let a waiting device in, or refuse it; `wanted` is its name, or the fingerprint's start."""
    now_ms, state = services.now_ms(), APPROVED if approve else REJECTED
    with writing(services.engine) as connection:
        row = _find(connection, wanted)
        decided = {"state": state, "decided_ms": now_ms, "decided_by": actor, "labels": labels}
        here = table.c.fingerprint == row["fingerprint"]
        connection.execute(update(table).where(here).values(**decided))
        data = {"fingerprint": row["fingerprint"], "site": row["site"]}
        subject, verb = f"device {row['device']}", "approve" if approve else "reject"
        audit.record(connection, now_ms, actor, f"device.{verb}", subject, data)
    return {name: row[name] for name in ("device", "site", "fingerprint")} | {"state": state}


def list_waiting(connection: Connection, now_ms: int) -> list[Document]:
    """Who waits, the longest first, and who was announced and has not come yet."""
    c = table.c
    columns = [column for column in c if column.name not in ("public_key",)]
    alive = or_(c.state == APPROVED, c.seen_ms >= now_ms - FORGET_MS)
    query = select(*columns).where(c.state != REJECTED, alive)
    return [dict(row) for row in connection.execute(query.order_by(c.asked_ms)).mappings()]


def take(connection: Connection, key: PublicKey) -> RowMapping:
    """Use an approval up: it lets one device in, once."""
    here = (table.c.fingerprint == key_id(key)) & (table.c.state == APPROVED)
    row = connection.execute(select(table).where(here)).mappings().first()
    if row is None:
        raise ForbiddenError("enrolment: the approval was used or withdrawn", code="rejected")
    connection.execute(delete(table).where(here))
    return row


def withdraw(connection: Connection, device: str) -> None:
    """Forget approvals of a device's name: it was revoked."""
    connection.execute(delete(table).where(table.c.device == device, table.c.state == APPROVED))


def read_key(text: str) -> PublicKey:
    """A public key as `shoal-agent key` prints it: base64 of 32 bytes."""
    try:
        key = b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InvalidInputError(f"public key {text[:60]!r}: expected base64 of 32 bytes (Ed25519)")
    return key


def _find(connection: Connection, wanted: str) -> RowMapping:
    c = table.c
    by_name = select(table).where(c.device == wanted, c.state == PENDING)
    found = list(connection.execute(by_name.limit(2)).mappings())
    if not found and len(wanted) >= MIN_PREFIX and wanted.isalnum():
        starts = c.fingerprint.startswith(wanted.lower(), autoescape=True)
        query = select(table).where(starts, c.state == PENDING).limit(2)
        found = list(connection.execute(query).mappings())
    if not found:
        raise NotFoundError(f"device {wanted[:80]!r}: does not wait; is it long ago that it asked?")
    if len(found) > 1:
        raise ConflictError(
            f"device {wanted[:80]!r}: several wait so; say the start of the fingerprint",
            code="ambiguous",
        )
    return found[0]


def _check_words(request: EnrolmentRequest) -> None:
    """An operator reads these: nothing that plays with a terminal or fills a page."""
    size = len(msgspec.json.encode(request.facts))
    if size > MAX_FACTS_BYTES:
        raise InvalidInputError(f"enrolment: facts of {size} bytes, at most {MAX_FACTS_BYTES}")
    for text in (request.profile, *request.facts, *request.facts.values()):
        if isinstance(text, str) and not text.isprintable():
            raise InvalidInputError(f"enrolment: {text[:40]!r}: not printable")


def _check_room(
    services: Services, connection: Connection, request: EnrolmentRequest, address: str
) -> None:
    here = (devices.c.device == request.device) & devices.c.revoked_ms.is_(None)
    if connection.execute(select(devices.c.device).where(here)).first() is not None:
        raise ConflictError(
            f"device {request.device}: is enrolled; to enrol it again, make a token for its name",
            code="already-enrolled",
        )
    pending = select(func.count()).where(table.c.state == PENDING)
    most = services.settings.enrolment.max_pending
    mine = connection.scalar(pending.where(table.c.address == address[:80])) or 0
    if (connection.scalar(pending) or 0) >= most or mine >= min(MAX_PER_ADDRESS, most):
        raise UnavailableError(
            "enrolment: too many devices wait for an operator; ask again later",
            code="too-many-pending",
        )


def _waiting(request: EnrolmentRequest, key: PublicKey, address: str) -> Document:
    return {
        "fingerprint": key_id(key),
        "public_key": key,
        "device": request.device,
        "site": request.site,
        "profile": request.profile,
        "facts": request.facts,
        "state": PENDING,
        "address": address[:80],
    }


def _forget(connection: Connection, now_ms: int) -> None:
    c = table.c
    old = (c.state != APPROVED) & (c.seen_ms < now_ms - FORGET_MS)
    connection.execute(delete(table).where(old))
