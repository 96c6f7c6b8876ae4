"""How often a password may be tried: leaky buckets, one an account and one an address.

An attempt is counted before the password is looked at, so that many at once count as many. A full
bucket refuses right passwords too; API tokens and open sessions are not touched by it.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from controller.errors import TooManyError
from controller.ingest.write import upsert
from controller.schema import sign_in_attempts

FORGET_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Limit:
    """So many at once, then one more each `refill_seconds`."""

    burst: int
    refill_seconds: float

    def level(self, level: float, elapsed_ms: int) -> float:
        """What is left of a level after a while; a clock that went back takes nothing away."""
        return max(0.0, level - max(0, elapsed_ms) / 1000 / self.refill_seconds)

    def wait_seconds(self, level: float) -> int:
        """How long until one more fits; 0 for now."""
        return math.ceil(max(0.0, level + 1 - self.burst) * self.refill_seconds)


ACCOUNT = Limit(burst=6, refill_seconds=60.0)
ADDRESS = Limit(burst=30, refill_seconds=10.0)


def take(connection: Connection, name: str, address: str, now_ms: int) -> None:
    """Count an attempt, or raise `TooManyError`."""
    c = sign_in_attempts.c
    connection.execute(delete(sign_in_attempts).where(c.at_ms < now_ms - FORGET_MS))
    levels: dict[str, float] = {}
    for key, limit in ((account_key(name), ACCOUNT), (address_key(address), ADDRESS)):
        row = connection.execute(select(sign_in_attempts).where(c.key == key)).first()
        level = limit.level(row.level, now_ms - row.at_ms) if row else 0.0
        if seconds := limit.wait_seconds(level):
            raise TooManyError(f"sign in: too many attempts, try again in {seconds} s")
        levels[key] = level + 1
    for key, level in levels.items():
        upsert(connection, sign_in_attempts, {"key": key}, {"level": level, "at_ms": now_ms})


def forgive(connection: Connection, name: str) -> None:
    """Empty an account's bucket: it was really them."""
    here = sign_in_attempts.c.key == account_key(name)
    connection.execute(delete(sign_in_attempts).where(here))


def account_key(name: str) -> str:
    """The bucket of an account, whether or not there is one of that name."""
    return f"account {name[:80]}"


def address_key(address: str) -> str:
    """The bucket of an address; of IPv6, all that one customer has.

    >>> address_key("192.0.2.7"), address_key("2001:db8::7")
    ('address 192.0.2.7', 'address 2001:db8::/64')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return f"address {address[:80]}"
    if isinstance(found, ipaddress.IPv6Address):
        return f"address {ipaddress.ip_network((found, 64), strict=False)}"
    return f"address {found}"
