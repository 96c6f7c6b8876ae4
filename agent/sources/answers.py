"""The answers of another model on this device: the second step of a pipeline.

The first model's outputs are the rows; each step is accounted for by its own windows. Answers that
find no room are dropped, the oldest first, and counted as `overload` of this step.
"""

from __future__ import annotations

import array
import asyncio
import math
import sys
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from agent.options import Key
from agent.ports import Answers, Samples
from agent.sources.kinds import SourceContext, SourceKind
from agent.sources.tally import Tally

MAX_ROWS = 4096
OVERLOAD = "overload"


class AnswersSource:
    """`agent.ports.Source`, and an `agent.ports.Action` of the model it follows."""

    live = True

    def __init__(self, follows: str, columns: dict[str, str], tally: Tally) -> None:
        self.follows = follows
        self._columns = columns
        self._tally = tally
        self._features: list[str] = []
        self._waiting: deque[Answers] = deque()
        self._rows = 0
        self._arrived = asyncio.Event()
        self._reading = False

    def __call__(self, answers: Answers) -> None:
        """Take answers of the first step; while nobody reads, they are not rows yet."""
        if not self._reading:
            return
        self._waiting.append(answers)
        self._rows += len(answers.times_ms)
        while self._rows > MAX_ROWS and len(self._waiting) > 1:
            gone = len(self._waiting.popleft().times_ms)
            self._rows -= gone
            self._tally.drop(OVERLOAD, f"more than {MAX_ROWS} answers wait", gone)
        self._arrived.set()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held open."""

    def select(self, features: list[str]) -> None:
        """Give these features, from outputs of the same name or as `columns` says."""
        self._features = features

    def take_dropped(self) -> dict[str, int]:
        """Answers that found no room since the last call."""
        return self._tally.take()

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Yield answers as they come, for ever."""
        self._reading = True
        try:
            while True:
                while not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
                answers = self._waiting.popleft()
                self._rows -= len(answers.times_ms)
                yield self._pack(answers)
        finally:
            self._reading = False
            self._waiting.clear()
            self._rows = 0

    def _pack(self, answers: Answers) -> Samples:
        places = []
        for feature in self._features:
            output = self._columns.get(feature, feature)
            if output not in answers.names:
                self._tally.tell_once(
                    f"no-output-{output}",
                    f"{feature}: {self.follows} {answers.version} has no output {output!r}",
                )
            places.append(answers.names.index(output) if output in answers.names else -1)
        values = array.array(
            "f", [math.nan if at < 0 else row[at] for row in answers.values for at in places]
        )
        if sys.byteorder == "big":
            values.byteswap()
        return Samples(list(answers.times_ms), values.tobytes(), len(places))


def _make(options: dict[str, Any], context: SourceContext) -> AnswersSource:
    return AnswersSource(options["model"], options["columns"], context.tally)


MODEL = SourceKind({"model": Key("text"), "columns": Key("table", {})}, _make)
