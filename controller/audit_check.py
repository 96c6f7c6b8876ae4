"""Checks the audit log's chain a piece at a time, so that nobody who looks waits for all of it.

Each look walks on from where the last one stopped; from the end it begins anew after an hour, for
what was checked may have been changed since. `shoal audit verify` walks the whole chain at once,
away from this controller.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from sqlalchemy import Connection, desc, select

from controller.schema import audit
from shoal.audit import GENESIS, walk

PIECE = 5000
"""Rows a look: some 50 ms."""
AGAIN_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class ChainState:
    """How far the chain is checked."""

    checked_id: int = 0
    """The last row that fits."""
    newest_id: int = 0
    since_ms: int = 0
    """When this walk began."""
    broken_id: int | None = None
    why: str = ""

    @property
    def whole(self) -> bool:
        """Whether every row was checked, and fits."""
        return self.broken_id is None and self.checked_id == self.newest_id


class ChainCheck:
    """One for a controller; any thread may look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = ChainState()
        self._hash = GENESIS

    def look(self, connection: Connection, now_ms: int) -> ChainState:
        """Check some more rows and say how far it is."""
        with self._lock:
            newest = connection.scalar(select(audit.c.id).order_by(desc(audit.c.id)).limit(1)) or 0
            state = self._state
            stale = now_ms - state.since_ms >= AGAIN_MS
            if (state.checked_id >= state.newest_id or state.broken_id is not None) and stale:
                state, self._hash = ChainState(since_ms=now_ms), GENESIS
            if state.broken_id is None:
                state = self._walk(connection, replace(state, newest_id=newest))
            self._state = state
            return state

    def _walk(self, connection: Connection, state: ChainState) -> ChainState:
        query = select(audit).where(audit.c.id > state.checked_id).order_by(audit.c.id)
        rows = [dict(row) for row in connection.execute(query.limit(PIECE)).mappings()]
        verdict = walk(rows, start=self._hash)
        self._hash = verdict.newest
        if verdict.broken_id is not None:
            return replace(state, broken_id=verdict.broken_id, why=verdict.why)
        if rows:
            return replace(state, checked_id=rows[-1]["id"])
        if state.checked_id > state.newest_id:
            why = "rows at the end that were there are gone"
            return replace(state, broken_id=state.checked_id, why=why)
        return state
