"""The agent's durable state: slots, the desired state accepted last, and what counts crashes.

One SQLite transaction a step; a power cut leaves the state before or the state after. What the
disk refuses is a `StateStoreError` with a sentence; the caller goes on with what it had.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from agent.clock import Known
from agent.slots import Slots
from shoal.errors import ShoalError

_T = TypeVar("_T")

STORE_RETRY_SECONDS = 15.0
"""A write that failed is tried again so much later."""


class StateStoreError(ShoalError):
    """The state could not be stored; `code` is disk-full, read-only-state or state-unwritable."""

    code = "state-unwritable"


class StateStore:
    """Reads and writes `state.sqlite`, fully synchronous: every commit is on the disk."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._db.execute("PRAGMA synchronous=FULL")

    def slots(self, model: str) -> Slots:
        """The slots of a model; empty ones where nothing is stored."""
        row = self._db.execute("SELECT document FROM slots WHERE model = ?", (model,)).fetchone()
        return Slots(model) if row is None else msgspec.json.decode(row[0], type=Slots)

    def save_slots(self, slots: Slots) -> None:
        """Store the slots of a model, or raise `StateStoreError`."""
        with self._writing():
            self._db.execute(
                "INSERT INTO slots (model, document) VALUES (?, ?)"
                " ON CONFLICT (model) DO UPDATE SET document = excluded.document",
                (slots.model, msgspec.json.encode(slots)),
            )

    def desired(self) -> tuple[int, bytes]:
        """Sequence and verified payload of the desired state accepted last; (0, b"") at first."""
        payload, sequence = self._get("desired"), self._get("floor")
        return int(sequence or b"0"), payload or b""

    def desired_sequence(self) -> int:
        """Sequence of the desired state accepted last; 0 at first."""
        return self.desired()[0]

    def accept_desired(self, sequence: int, payload: bytes) -> None:
        """Store a desired state before anything is done about it, or raise `StateStoreError`."""
        self._put({"floor": str(sequence).encode(), "desired": payload})

    def note(self, key: str, kind: type[_T]) -> _T | None:
        """A small value remembered under `key`; None where there is none, or none of that kind."""
        return self._decode(f"note:{key}", kind)

    def save_note(self, key: str, value: object) -> None:
        """Remember a small value, or raise `StateStoreError`."""
        self._put({f"note:{key}": msgspec.json.encode(value)})

    def clock(self) -> Known | None:
        """How far the clock had come when it was stored last."""
        return self._decode("clock", Known)

    def save_clock(self, known: Known) -> None:
        """Store how far the clock has come, or raise `StateStoreError`."""
        self._put({"clock": msgspec.json.encode(known)})

    def kept_manifests(self) -> set[str]:
        """Manifests that any slot still needs."""
        found = set()
        for (document,) in self._db.execute("SELECT document FROM slots"):
            slots = msgspec.json.decode(document, type=Slots)
            refs = [slots.active, slots.last_good]
            if slots.candidate is not None:
                refs.append(slots.candidate.release)
                found.add(slots.candidate.assignment.manifest_sha256)
            found |= {ref.manifest_sha256 for ref in refs if ref is not None}
        return found

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _get(self, key: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def _decode(self, key: str, kind: type[_T]) -> _T | None:
        data = self._get(key)
        try:
            return None if data is None else msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError:  # written by another version of the agent
            return None

    def _put(self, values: dict[str, bytes]) -> None:
        with self._writing():
            for item in values.items():
                self._db.execute(
                    "INSERT INTO meta (key, value) VALUES (?, ?)"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    item,
                )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; what goes wrong is rolled back and said in a sentence."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _explain(error) from error


def _explain(error: sqlite3.Error) -> StateStoreError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return StateStoreError(f"state folder: the disk is full ({error})", code="disk-full")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return StateStoreError(f"state folder: is read-only ({error})", code="read-only-state")
    return StateStoreError(f"state folder: cannot be written ({name}: {error})")
