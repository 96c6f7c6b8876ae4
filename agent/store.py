"""The agent's durable state: slots and the desired state accepted last.

One SQLite transaction a step; a power cut leaves the state before or the state after.
"""

from __future__ import annotations

import sqlite3

import msgspec

from agent.clock import Known
from agent.slots import Slots


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
        """Store the slots of a model."""
        self._db.execute(
            "INSERT INTO slots (model, document) VALUES (?, ?)"
            " ON CONFLICT (model) DO UPDATE SET document = excluded.document",
            (slots.model, msgspec.json.encode(slots)),
        )

    def desired(self) -> tuple[int, bytes]:
        """Sequence and verified payload of the desired state accepted last; (0, b"") at first."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'desired'").fetchone()
        sequence = self._db.execute("SELECT value FROM meta WHERE key = 'floor'").fetchone()
        return (int(sequence[0]) if sequence else 0), (row[0] if row else b"")

    def accept_desired(self, sequence: int, payload: bytes) -> None:
        """Store a desired state before anything is done about it."""
        self._db.execute("BEGIN IMMEDIATE")
        for key, value in (("floor", str(sequence).encode()), ("desired", payload)):
            self._db.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )
        self._db.execute("COMMIT")

    def clock(self) -> Known | None:
        """How far the clock had come when it was stored last."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
        try:
            return None if row is None else msgspec.json.decode(row[0], type=Known)
        except msgspec.DecodeError:
            return None

    def save_clock(self, known: Known) -> None:
        """Store how far the clock has come."""
        self._db.execute(
            "INSERT INTO meta (key, value) VALUES ('clock', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (msgspec.json.encode(known),),
        )

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
