"""Slow actions behind a bounded queue and a thread of their own: none may ever block inference.

A full queue drops the oldest answers, a failing writer the batch in hand. Both are counted and
told once, and the end of the trouble is told with what it cost.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import Protocol

from agent.ports import Answers

LINGER_SECONDS = 0.2
CLOSE_SECONDS = 3.0
Stopping = threading.Event


class WriteError(Exception):
    """A batch that could not be written; its rows are lost to this action."""


class Writer(Protocol):
    """Writes batches, in the action's thread."""

    def write(self, batch: list[Answers], stopping: Stopping) -> None:
        """Write, or raise `WriteError`; with patience only while not `stopping`."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class QueuedAction:
    """`agent.ports.Action` that only queues; its thread writes."""

    def __init__(
        self,
        name: str,
        writer: Writer,
        *,
        max_rows: int,
        batch_rows: int,
        tell: Callable[[str, str], None],
        labels: Collection[str] = (),
    ) -> None:
        self._name = name
        self._writer = writer
        self._max_rows = max_rows
        self._batch_rows = batch_rows
        self._tell = tell
        self._labels = frozenset(labels)
        self._queue: deque[Answers] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._in_trouble: str = ""
        self._lost_now = 0
        self.written = 0
        self.lost: Counter[str] = Counter()

    def __call__(self, answers: Answers) -> None:
        """Queue answers; the oldest make room."""
        if self._labels:
            answers = _only(answers, self._labels)
        if not answers.times_ms:
            return
        with self._changed:
            self._queue.append(answers)
            self._rows += len(answers.times_ms)
            dropped = 0
            while self._rows > self._max_rows and len(self._queue) > 1:
                dropped += self._pop()[1]
            self._changed.notify()
        if dropped:
            self._lose("queue-full", dropped, f"more than {self._max_rows} rows wait")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """The thread lets go of what it holds within `LINGER_SECONDS` anyway."""

    def close(self) -> None:
        """Write what is queued, for a few seconds at most."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while batch := self._next():
            rows = sum(len(one.times_ms) for one in batch)
            try:
                self._writer.write(batch, self._stopping)
            except WriteError as error:
                self._lose("not-written", rows, str(error))
            else:
                self.written += rows
                self._recover()
        self._writer.close()

    def _next(self) -> list[Answers]:
        """Wait for answers; nothing means that we stop and all is written."""
        with self._changed:
            while not self._queue and not self._stopping.is_set():
                self._changed.wait()
            deadline = time.monotonic() + LINGER_SECONDS
            while self._rows < self._batch_rows and not self._stopping.is_set():
                if (left := deadline - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            batch: list[Answers] = []
            room = self._batch_rows
            while self._queue and (not batch or len(self._queue[0].times_ms) <= room):
                one, rows = self._pop()
                batch.append(one)
                room -= rows
            return batch

    def _pop(self) -> tuple[Answers, int]:
        one = self._queue.popleft()
        self._rows -= len(one.times_ms)
        return one, len(one.times_ms)

    def _lose(self, code: str, rows: int, words: str) -> None:
        self.lost[code] += rows
        self._lost_now += rows
        if self._in_trouble != code:
            self._in_trouble = code
            self._tell(f"action-{code}", f"action {self._name}: {words}")

    def _recover(self) -> None:
        if self._in_trouble and self._rows <= self._max_rows // 2:
            self._in_trouble, lost, self._lost_now = "", self._lost_now, 0
            self._tell("action-recovered", f"action {self._name}: writes again, lost {lost} rows")


def _only(answers: Answers, labels: frozenset[str]) -> Answers:
    kept = [i for i, label in enumerate(answers.labels) if label in labels]
    return Answers(
        answers.model,
        answers.version,
        answers.release_sequence,
        answers.names,
        [answers.times_ms[i] for i in kept],
        [answers.values[i] for i in kept],
        [answers.labels[i] for i in kept],
    )


def rows_of(batch: list[Answers]) -> list[dict[str, object]]:
    """One table a row, as the file and webhook actions write it."""
    return [
        {
            "time_ms": ms,
            "model": answers.model,
            "version": answers.version,
            "label": label,
            **dict(zip(answers.names, values, strict=True)),
        }
        for answers in batch
        for ms, values, label in zip(
            answers.times_ms,
            answers.values,
            answers.labels or [""] * len(answers.times_ms),
            strict=True,
        )
    ]
