"""A shadow run: the candidate answers the same windows as the active release, and is compared.

The comparison is pure (`Agreement`); `ShadowRun` feeds it. The pipeline offers each batch it has
already answered, so the active release never waits: what the candidate cannot keep up with is
skipped and counted. The candidate's answers go nowhere.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from agent.pipeline.conditioning import conditions_of
from agent.workers.frames import InferAnswer, InferRequest
from shoal.errors import ShoalError
from shoal.latency import latency_quantile
from shoal.protocol.manifest import Contract, Shadow
from shoal.protocol.messages import LATENCY_EDGES_US

MAX_WAITING = 8
"""Batches offered and not compared yet."""
CHECK_SECONDS = 0.5


class Answering(Protocol):
    """What a shadow run needs of the candidate's worker."""

    labels: list[str]

    async def infer(self, request: InferRequest) -> InferAnswer: ...


@dataclass(slots=True)
class Agreement:
    """How far two releases agree, over the rows that both answered."""

    rows: int = 0
    same_labels: int = 0
    labelled: int = 0
    values: int = 0
    difference_sum: float = 0.0
    difference_max: float = 0.0
    skipped: int = 0
    """Rows that the candidate did not see, since it was too slow."""
    failed: int = 0
    """Rows that the candidate gave no comparable answer to."""
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_EDGES_US) + 1))
    latency_before: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_EDGES_US) + 1))

    def compare(
        self,
        rows: int,
        mine: tuple[InferAnswer, list[str], float],
        theirs: tuple[InferAnswer, list[str], float],
    ) -> None:
        """Add a batch: of each release its answer, the words of its labels, and µs it took."""
        (new, new_labels, new_us), (old, old_labels, old_us) = mine, theirs
        if (new.windows, new.outputs) != (old.windows, old.outputs):
            self.failed += rows
            return
        self.rows += rows
        self.latency[bisect_left(LATENCY_EDGES_US, new_us)] += rows
        self.latency_before[bisect_left(LATENCY_EDGES_US, old_us)] += rows
        if new.labels and old.labels:
            pairs = zip(new.labels, old.labels, strict=True)
            self.labelled += len(new.labels)
            self.same_labels += sum(new_labels[a] == old_labels[b] for a, b in pairs)
        for a, b in zip(array.array("f", new.values), array.array("f", old.values), strict=True):
            difference = abs(a - b)
            if difference == difference:  # NaN against NaN tells nothing
                self.values += 1
                self.difference_sum += difference
                self.difference_max = max(self.difference_max, difference)

    @property
    def label_agreement(self) -> float | None:
        """Share of equal labels; None without labels."""
        return self.same_labels / self.labelled if self.labelled else None

    @property
    def mean_difference(self) -> float:
        """Mean absolute difference of the outputs."""
        return self.difference_sum / self.values if self.values else 0.0

    def numbers(self) -> dict[str, float]:
        """The report, as evidence in the execution's event."""
        found: dict[str, float] = {
            "shadow_rows": self.rows,
            "shadow_skipped": self.skipped,
            "shadow_failed": self.failed,
            "mean_difference": round(self.mean_difference, 7),
            "max_difference": round(min(self.difference_max, 1e300), 7),
            "latency_p95_us": latency_quantile(self.latency, 0.95),
            "latency_before_us": latency_quantile(self.latency_before, 0.95),
        }
        if self.label_agreement is not None:
            found["label_agreement"] = round(self.label_agreement, 4)
        return found

    def sentence(self) -> str:
        """The report in words."""
        labels = self.label_agreement
        words = "no labels" if labels is None else f"{labels:.1%} equal labels"
        return (
            f"{self.rows} rows beside the active release: {words}, "
            f"mean difference {self.mean_difference:.4g}, largest {self.difference_max:.4g}, "
            f"p95 {latency_quantile(self.latency, 0.95):.0f} µs against "
            f"{latency_quantile(self.latency_before, 0.95):.0f} µs"
        )


def disagreement(found: Agreement, limits: Shadow) -> str:
    """Why the candidate is refused; "" when it agrees well enough, or too few rows say anything."""
    if found.rows + found.failed < limits.min_rows:
        return ""
    labels = found.label_agreement
    if found.failed > found.rows:
        return f"{found.failed} of {found.rows + found.failed} rows without a comparable answer"
    if labels is not None and labels < limits.min_label_agreement:
        return (
            f"{labels:.1%} of {found.labelled} labels equal to the active release's, "
            f"at least {limits.min_label_agreement:.1%} needed"
        )
    most = limits.max_mean_difference
    if most is not None and found.mean_difference > most:
        return (
            f"outputs differ from the active release's by {found.mean_difference:.4g} on average "
            f"over {found.rows} rows, at most {most:g} allowed"
        )
    return ""


def is_comparable(new: Contract, old: Contract) -> bool:
    """Whether two releases take the same windows and give the same outputs."""

    def shape(one: Contract) -> tuple[object, int, int, list[str]]:
        outputs = [o.name for o in one.outputs]
        return conditions_of(one), one.window_rows, one.stride_rows, outputs

    return shape(new) == shape(old)


class ShadowRun:
    """Feeds a candidate what the active release has answered, until there is enough."""

    def __init__(self, candidate: Answering, limits: Shadow, width: int) -> None:
        self._candidate = candidate
        self._limits = limits
        self._width = width
        self._waiting: asyncio.Queue[tuple[InferRequest, InferAnswer, list[str], float]] = (
            asyncio.Queue(MAX_WAITING)
        )
        self.agreement = Agreement()
        self.on_difference: Callable[[InferRequest, InferAnswer, list[str], list[int]], None] = (
            lambda request, answer, labels, indices: None
        )
        """Told of the windows that got another label, with the active release's answer."""

    def offer(
        self, request: InferRequest, answer: InferAnswer, labels: list[str], latency_us: float
    ) -> None:
        """Take a batch that the active release has answered; never waits."""
        if request.width != self._width:
            return
        try:
            self._waiting.put_nowait((request, answer, labels, latency_us))
        except asyncio.QueueFull:
            self.agreement.skipped += request.fresh

    async def run(self) -> Agreement:
        """Compare until the rows or the seconds are over."""
        limits = self._limits
        end = time.monotonic() + limits.seconds if limits.seconds else None
        while not limits.rows or self.agreement.rows + self.agreement.failed < limits.rows:
            left = CHECK_SECONDS if end is None else min(CHECK_SECONDS, end - time.monotonic())
            if left <= 0:
                break
            offered = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):  # wait_for can lose a cancellation (Python 3.11)
                    offered = await self._waiting.get()
            if offered is not None:
                await self._compare(offered)
        return self.agreement

    async def _compare(self, offered: tuple[InferRequest, InferAnswer, list[str], float]) -> None:
        request, theirs, their_labels, their_us = offered
        start = time.perf_counter_ns()
        try:
            mine = await self._candidate.infer(request)
        except ShoalError:
            self.agreement.failed += request.fresh
            return
        mine_us = (time.perf_counter_ns() - start) / 1e3
        self.agreement.compare(
            request.fresh,
            (mine, self._candidate.labels, mine_us),
            (theirs, their_labels, their_us),
        )
        if len(mine.labels) == len(theirs.labels):
            words = self._candidate.labels
            pairs = enumerate(zip(mine.labels, theirs.labels, strict=True))
            other = [index for index, (a, b) in pairs if words[a] != their_labels[b]]
            if other:
                self.on_difference(request, theirs, their_labels, other)
