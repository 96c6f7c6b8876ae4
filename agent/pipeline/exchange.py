"""One micro-batch to the worker and back: its rows settled, its answers passed on.

The answers of a batch are passed on while the worker has others, so neither waits for the other.
Whoever calls holds the pipeline's lock.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from agent.pipeline import accounting
from agent.pipeline.accounting import Account
from agent.pipeline.batches import answers_of
from agent.pipeline.narrowing import ask_one_by_one, losses_allowed
from agent.pipeline.parts import share, together
from agent.ports import Action, StagedRelease
from agent.workers import frames
from agent.workers.frames import InferAnswer, InferRequest
from agent.workers.pool import BatchFailedError, QuarantinedError, Worker

Beside = Callable[[InferRequest, InferAnswer, list[str], float], None]
"""Gets an answered batch too, with the words of its labels and the µs it took."""


class Watcher(Protocol):
    """What a recorder of captures looks like from here."""

    def wants(self, release: StagedRelease) -> bool: ...
    def see(
        self,
        release: StagedRelease,
        answer: InferAnswer,
        labels: list[str],
        rows: bytes,
        times_ms: list[int],
        carried: int,
    ) -> None: ...
    def disagreed(
        self,
        release: StagedRelease,
        request: InferRequest,
        answer: InferAnswer,
        labels: list[str],
        indices: Iterable[int],
    ) -> None: ...


class Exchange:
    """The account of one pipeline's window, and the actions that get its answers."""

    def __init__(self, model: str, actions: list[Action]) -> None:
        self._model = model
        self.actions = list(actions)
        self.account = Account()
        self.beside: Beside | None = None
        self._unsaid: Callable[[], None] | None = None

    async def ask(
        self,
        worker: Worker,
        request: InferRequest,
        asked: Awaitable[InferAnswer],
        began_ns: int,
    ) -> tuple[InferAnswer, float]:
        """The answer to one micro-batch, settled, and the µs that it took."""
        answer = await asked
        latency_us = (time.perf_counter_ns() - began_ns) / 1e3
        self._settle(answer, request.fresh, latency_us)
        if self.beside is not None:
            self.beside(request, answer, worker.labels, latency_us)
        self.account.labels.update(worker.labels[index] for index in answer.labels)
        return answer, latency_us

    async def ask_parts(
        self, worker: Worker, parts: Sequence[bytes]
    ) -> list[InferAnswer | BatchFailedError]:
        """What became of each of several peers' rows, which go to the worker together."""
        contract = worker.release.manifest.contract
        width = len(contract.features)
        requests = [InferRequest(0, len(one) // (width * 4), width, one) for one in parts]
        found: list[InferAnswer | BatchFailedError] = []

        async def ask(at: int) -> None:
            start_ns = time.perf_counter_ns()
            answer, _ = await self.ask(
                worker, requests[at], worker.infer_alone(requests[at]), start_ns
            )
            found.append(answer)

        def fail(start: int, stop: int, error: BatchFailedError) -> None:
            self.give_up(worker, together(requests[start:stop]), error)
            found.extend([error] * (stop - start))

        began_ns = time.perf_counter_ns()
        try:
            every = together(requests)
            whole, _ = await self.ask(worker, every, worker.try_infer(every), began_ns)
        except BatchFailedError as error:
            if isinstance(error, QuarantinedError) and len(parts) > 1:
                await ask_one_by_one(len(parts), losses_allowed(1, 1), ask, fail)
            else:
                fail(0, len(parts), error)
            return found
        return list(share(whole, [one.fresh for one in requests], contract.window_rows))

    def give_up(self, worker: Worker, request: InferRequest, error: BatchFailedError) -> None:
        """Settle rows that get no answer."""
        self.account.fail(error.code, request.fresh)
        if isinstance(error, QuarantinedError):
            worker.set_aside(request, error)

    def say_later(
        self, worker: Worker, answer: InferAnswer, times: list[int], carried: int
    ) -> None:
        """Pass these answers on at the next `say`: once the worker has something to do."""
        self.say()
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
