"""Predictions over MQTT: collected into messages and handed to the outbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from agent.ports import Answers

MAX_MESSAGE_ROWS = 100
MAX_HELD_ROWS = 1000
"""At full speed, messages of so many rows are stored at once: a transaction costs ten of them."""
FLUSH_SECONDS = 1.0


class PredictionBatcher:
    """Collects answers of one model, at most one second long, into messages of at most 100 rows."""

    def __init__(self, publish: Callable[[Sequence[Answers]], None]) -> None:
        self._publish = publish
        self._held: Answers | None = None
        self._since = 0.0

    def __call__(self, answers: Answers) -> None:
        """Take answers; publish what is full or belongs to another release."""
        held = self._held
        if held is None:
            self._hold(answers)
        elif held.release_sequence == answers.release_sequence:
            held.times_ms.extend(answers.times_ms)
            held.values.extend(answers.values)
            held.labels.extend(answers.labels)
        else:
            self.flush()
            self._hold(answers)
        if self._held is not None and (
            len(self._held.times_ms) >= MAX_HELD_ROWS
            or time.monotonic() - self._since >= FLUSH_SECONDS
        ):
            self.flush()

    def _hold(self, answers: Answers) -> None:
        """Begin with a copy: other actions get the same answers."""
        self._held, self._since = _part(answers, slice(None)), time.monotonic()

    def flush(self) -> None:
        """Publish what is held."""
        held, self._held = self._held, None
        if held is None:
            return
        cuts = [
            slice(start, start + MAX_MESSAGE_ROWS)
            for start in range(0, len(held.times_ms), MAX_MESSAGE_ROWS)
        ]
        self._publish([_part(held, cut) for cut in cuts])

    def close(self) -> None:
        """Publish what is held; nothing follows."""
        self.flush()


def _part(held: Answers, cut: slice) -> Answers:
    return Answers(
        held.model,
        held.version,
        held.release_sequence,
        held.names,
        held.times_ms[cut],
        held.values[cut],
        held.labels[cut],
    )
