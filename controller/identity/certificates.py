"""Which certificates devices hold, and which were taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, delete, desc, insert, select, update

from controller.identity.authority import Authority
from controller.schema import certificates as table
from shoal.signing import PublicKey


def issue(
    connection: Connection,
    authority: Authority,
    device: str,
    public_key: PublicKey,
    now_ms: int,
    days: float,
) -> bytes:
    """Issue and record a certificate; return it with its chain, PEM."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    key = Ed25519PublicKey.from_public_bytes(public_key)
    issued = authority.issue_client(device, key, now, timedelta(days=days))
    end = issued.certificate.not_valid_after_utc
    row = {
        "serial": issued.serial,
        "device": device,
        "issued_ms": now_ms,
        "not_after_ms": int(end.timestamp() * 1000),
        "chain": issued.chain,
    }
    connection.execute(insert(table).values(**row))
    connection.execute(delete(table).where(table.c.not_after_ms < now_ms))
    return issued.chain


def newest(connection: Connection, device: str) -> Any:
    """(issued_ms, not_after_ms, chain) of the newest certificate that was not taken back."""
    c = table.c
    query = (
        select(c.issued_ms, c.not_after_ms, c.chain)
        .where(c.device == device, c.revoked_ms.is_(None))
        .order_by(desc(c.not_after_ms))
        .limit(1)
    )
    return connection.execute(query).first()


def take_back(connection: Connection, device: str, now_ms: int) -> bool:
    """Take back all that a device holds; whether there was any."""
    here = (table.c.device == device) & table.c.revoked_ms.is_(None)
    return bool(connection.execute(update(table).where(here).values(revoked_ms=now_ms)).rowcount)


def taken_back(connection: Connection, now_ms: int) -> list[str]:
    """Serial numbers that the broker must refuse: those that have ended it refuses anyway."""
    c = table.c
    query = select(c.serial).where(c.revoked_ms.is_not(None), c.not_after_ms >= now_ms)
    return list(connection.scalars(query.order_by(c.serial)))
