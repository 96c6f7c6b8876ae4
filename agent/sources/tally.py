"""What a source could not use: counted by reason, told once a kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

UNPARSABLE = "unparsable"
"""Not a row, or a value that is no number."""
TOO_LONG = "too-long"
"""A line or message above its limit."""

Tell = Callable[[str, str], None]
"""Says (code, sentence) to people: a log line and an event."""


def silent(code: str, sentence: str) -> None:
    """A `Tell` for nobody."""


class Tally:
    """Counts of one source since they were last taken."""

    def __init__(self, tell: Tell = silent) -> None:
        self._tell = tell
        self._told: set[str] = set()
        self._counts: Counter[str] = Counter()

    def drop(self, reason: str, sentence: str, rows: int = 1) -> None:
        """Count rows as unusable; the first of a reason is told with its sentence."""
        self._counts[reason] += rows
        self.tell_once(reason, sentence)

    def tell_once(self, code: str, sentence: str) -> None:
        """Tell the first of a kind; `forget` makes the next one the first again."""
        if code not in self._told:
            self._told.add(code)
            self._tell(code, sentence)

    def forget(self, code: str) -> None:
        """The trouble is over; should it come back, it is told again."""
        self._told.discard(code)

    def take(self) -> dict[str, int]:
        """Counts since the last call."""
        taken, self._counts = self._counts, Counter()
        return dict(taken)
