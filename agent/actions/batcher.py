"""Predictions over MQTT: collected into messages and handed to the outbox."""

from __future__ import annotations

import time
from collections.abc import Callable

from agent.ports import Answers

MAX_MESSAGE_ROWS = 100
FLUSH_SECONDS = 1.0


class PredictionBatcher:
    """Collects answers of one model into messages of at most 100 rows or one second."""

    def __init__(self, publish: Callable[[Answers], None]) -> None:
        self._publish = publish
        self._held: Answers | None = None
        self._since = 0.0

    def __call__(self, answers: Answers) -> None:
        """Take answers; publish what is full or belongs to another release."""
        held = self._held
        if held is None:
            self._held, self._since = answers, time.monotonic()
        elif held.release_sequence == answers.release_sequence:
            self._held = Answers(
                held.model,
                held.version,
                held.release_sequence,
                held.names,
                held.times_ms + answers.times_ms,
                held.values + answers.values,
                held.labels + answers.labels,
            )
        else:
            self.flush()
            self._held, self._since = answers, time.monotonic()
        if self._held is not None and (
            len(self._held.times_ms) >= MAX_MESSAGE_ROWS
            or time.monotonic() - self._since >= FLUSH_SECONDS
        ):
            self.flush()

    def flush(self) -> None:
        """Publish what is held."""
        held, self._held = self._held, None
        if held is None:
            return
        for start in range(0, len(held.times_ms), MAX_MESSAGE_ROWS):
            cut = slice(start, start + MAX_MESSAGE_ROWS)
            self._publish(
                Answers(
                    held.model,
                    held.version,
                    held.release_sequence,
                    held.names,
                    held.times_ms[cut],
                    held.values[cut],
                    held.labels[cut],
                )
            )

    def close(self) -> None:
        """Publish what is held; nothing follows."""
        self.flush()
