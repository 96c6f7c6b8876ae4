"""One micro-batch to the worker and back: its rows settled, its answers passed on.

The answers of a batch are passed on while the worker has the next one, so neither waits for the
other. Whoever calls holds the pipeline's lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from agent.pipeline import accounting
from agent.pipeline.accounting import Account
from agent.pipeline.batches import answers_of
from agent.ports import Action
from agent.workers import frames
from agent.workers.frames import InferAnswer, InferRequest
from agent.workers.pool import BatchFailedError, Worker

Beside = Callable[[InferRequest, InferAnswer, list[str], float], None]
"""Gets an answered batch too, with the words of its labels and the µs it took."""


class Exchange:
    """The account of one pipeline's window, and the actions that get its answers."""

    def __init__(self, model: str, actions: list[Action]) -> None:
        self._model = model
        self.actions = list(actions)
        self.account = Account()
        self.beside: Beside | None = None
        self._unsaid: Callable[[], None] | None = None

    async def ask(
        self, worker: Worker, rows: int, width: int, values: bytes, carried: int = 0
    ) -> tuple[InferAnswer, float]:
        """The answer to one micro-batch, settled, and the µs that it took."""
        request = InferRequest(carried, rows, width, values)
        start = time.perf_counter_ns()
        asked = asyncio.ensure_future(worker.infer(request))
        if self._unsaid is not None:
            await asyncio.sleep(0)  # the request goes out first
            self.say()
        try:
            answer = await asked
        except BatchFailedError as error:
            self.account.fail(error.code, rows)
            raise
        latency_us = (time.perf_counter_ns() - start) / 1e3
        self._settle(answer, rows, latency_us)
        if self.beside is not None:
            self.beside(request, answer, worker.labels, latency_us)
        self.account.labels.update(worker.labels[index] for index in answer.labels)
        return answer, latency_us

    def say_later(
        self, worker: Worker, answer: InferAnswer, times: list[int], carried: int
    ) -> None:
        """Pass these answers on with the next batch, or at the next `say`."""
        self._unsaid = partial(self._act, worker, answer, times, carried)

    def say(self) -> None:
        """Pass on the answers of the batch before, if that is still to do."""
        said, self._unsaid = self._unsaid, None
        if said is not None:
            said()

    def flush(self) -> None:
        """Pass on all that is held back: the window closes."""
        self.say()
        for action in self.actions:
            action.flush()

    def take_account(self) -> Account:
        """The counts so far; the next window begins."""
        account, self.account = self.account, Account()
        return account

    def _settle(self, answer: InferAnswer, rows: int, latency_us: float) -> None:
        missing = answer.rows.count(frames.MISSING)
        broken = answer.rows.count(frames.NON_FINITE)
        self.account.drop(accounting.MISSING, missing)
        self.account.fail(accounting.NON_FINITE_OUTPUT, broken)
        self.account.succeed(rows - missing - broken, latency_us)
        self.account.out_of_range += answer.out_of_range

    def _act(self, worker: Worker, answer: InferAnswer, times: list[int], carried: int) -> None:
        if not answer.windows or not self.actions:
            return
        answers = answers_of(self._model, worker.release, worker.labels, answer, times, carried)
        for action in self.actions:
            action(answers)
