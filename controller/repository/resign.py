"""Keeping snapshot and timestamp fresh: at every publication, and by the clock."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine
from tuf.api.metadata import Metadata, Root

from controller.database import reading, writing
from controller.repository import online, store
from controller.repository.keyring import Keyring
from controller.repository.status import describe_status, warnings_of
from shoal.errors import UntrustedError
from shoal.signing import FileSigner, key_id
from shoal.trust.metadata import role_keys, sign
from shoal.trust.roles import ONLINE, ROOT, SNAPSHOT, TIMESTAMP

log = logging.getLogger("controller.repository")

CHECK_SECONDS = 30.0
WARN_SECONDS = 3600.0


class NoOnlineKeyError(UntrustedError):
    """The published root names no key of an online role that this controller holds."""

    code = "no-online-key"


def online_signers(keyring: Keyring, root: Metadata[Root]) -> dict[str, FileSigner]:
    """The key of each online role that the root names and we hold."""
    found = {}
    for role in ONLINE:
        signer = keyring.chosen(role, role_keys(root.signed, role).keys)
        if signer is None:
            raise NoOnlineKeyError(
                f"root {root.signed.version}: names no {role} key that this controller holds"
            )
        found[role] = signer
    return found


def freshen(
    connection: Connection, keyring: Keyring, now: datetime, root: Metadata[Root] | None = None
) -> bool:
    """Sign what is due, in this transaction: snapshot first, timestamp last; whether it did."""
    root = root or store.current(connection, ROOT, Root)
    if root is None:
        return False
    signers = online_signers(keyring, root)
    snapshot, timestamp = store.snapshot(connection), store.timestamp(connection)
    versions = store.versions(connection)
    names = {role: key_id(signers[role].public_key) for role in ONLINE}
    due = online.find_due(snapshot, timestamp, versions, now, names)
    now_ms = int(now.timestamp() * 1000)
    if due.snapshot or snapshot is None:
        made = Metadata(online.next_snapshot(snapshot, versions, now))
        snapshot = sign(made, signers[SNAPSHOT])
        store.put(connection, SNAPSHOT, snapshot, now_ms)
    if due.timestamp:
        stamp = Metadata(online.next_timestamp(timestamp, snapshot, now))
        store.put(connection, TIMESTAMP, sign(stamp, signers[TIMESTAMP]), now_ms)
    if due.timestamp or due.snapshot:
        store.prune(connection, now_ms)
    return due.timestamp or due.snapshot


class Resigner:
    """The task that signs online roles in time and says when people must sign theirs."""

    def __init__(self, engine: Engine, keyring: Keyring) -> None:
        self._engine = engine
        self._keyring = keyring
        self._warned: datetime | None = None

    def work(self, now: datetime | None = None) -> bool:
        """One round; whether something was signed."""
        now = now or datetime.now(UTC)
        self._warn(now)
        if not self._is_due(now):
            return False
        with writing(self._engine, durable=True) as connection:
            return freshen(connection, self._keyring, now)

    def _is_due(self, now: datetime) -> bool:
        """Look without taking the write lock."""
        with reading(self._engine) as connection:
            root = store.current(connection, ROOT, Root)
            if root is None:
                return False
            names = {
                role: key_id(signer.public_key)
                for role, signer in online_signers(self._keyring, root).items()
            }
            due = online.find_due(
                store.snapshot(connection),
                store.timestamp(connection),
                store.versions(connection),
                now,
                names,
            )
        return due.snapshot or due.timestamp

    def _warn(self, now: datetime) -> None:
        if self._warned is not None and (now - self._warned).total_seconds() < WARN_SECONDS:
            return
        self._warned = now
        with reading(self._engine) as connection:
            status = describe_status(connection, self._keyring, now)
        for sentence in warnings_of(status):
            log.warning("event=trust sentence=%r", sentence)
