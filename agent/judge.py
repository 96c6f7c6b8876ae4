"""Judging a release in probation, purely from counts: commit, go on, or roll back.

Rolling back is possible as soon as there is enough evidence; committing needs both the time and
the rows that the manifest asks for. The limits are the author's (`Probation`), each verdict a
sentence with the number found, the limit and the sample size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from agent.pipeline.accounting import NON_FINITE_OUTPUT
from agent.ports import WindowReport
from shoal.latency import LATENCY_FLOOR_US, latency_quantile
from shoal.protocol.manifest import Probation

MIN_MEMORY_RISE = 16 * 2**20
"""Bytes; a worker's size is known no better, since it shares pages with the others."""


class Verdict(Enum):
    """What to do with the candidate."""

    COMMIT = "commit"
    CONTINUE = "continue"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What probation has shown so far."""

    answered: int = 0
    failed: int = 0
    non_finite: int = 0
    """Of the failed: answers that are NaN or infinite."""
    out_of_range: int = 0
    crashes: int = 0
    deadlines: int = 0
    memory_bytes: int = 0
    """Most that its worker took at the end of a window."""
    latency_counts: tuple[int, ...] = ()

    def with_report(self, report: WindowReport) -> Evidence:
        """Add a closed window of the candidate."""
        before = self.latency_counts or (0,) * len(report.latency_counts)
        return replace(
            self,
            answered=self.answered + report.ok,
            failed=self.failed + sum(report.failed.values()),
            non_finite=self.non_finite + report.failed.get(NON_FINITE_OUTPUT, 0),
            out_of_range=self.out_of_range + report.out_of_range,
            latency_counts=tuple(a + b for a, b in zip(before, report.latency_counts, strict=True)),
        )

    def with_loss(self, code: str) -> Evidence:
        """Add a lost worker: crash, missed deadline or out of memory."""
        if code == "deadline-missed":
            return replace(self, deadlines=self.deadlines + 1)
        return replace(self, crashes=self.crashes + 1)

    def with_memory(self, memory_bytes: int) -> Evidence:
        """Add a look at its worker."""
        return replace(self, memory_bytes=max(self.memory_bytes, memory_bytes))

    @property
    def settled(self) -> int:
        """Rows with an end: answered or failed."""
        return self.answered + self.failed


@dataclass(frozen=True, slots=True)
class Before:
    """How the release before did on this device, over its last windows.

    A broken sensor or a slow machine is no fault of the candidate: it is judged by the rise.
    """

    latency_p95_us: float = 0.0
    """0 where no release ran before."""
    out_of_range_ratio: float = 0.0
    failed_ratio: float = 0.0
    non_finite_ratio: float = 0.0
    memory_bytes: int = 0
    """0 where it is not known."""


def summarise_before(reports: Iterable[WindowReport], memory_bytes: int = 0) -> Before:
    """The last windows of the release before as one."""
    evidence = Evidence()
    for report in reports:
        evidence = evidence.with_report(report)
    if not evidence.answered:
        return Before()
    return Before(
        latency_quantile(list(evidence.latency_counts), 0.95),
        evidence.out_of_range / evidence.answered,
        evidence.failed / evidence.settled,
        evidence.non_finite / evidence.settled,
        memory_bytes,
    )


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its code, its sentence, and the numbers behind it."""

    verdict: Verdict
    code: str = ""
    sentence: str = ""
    numbers: tuple[tuple[str, float], ...] = ()


def judge(
    evidence: Evidence,
    limits: Probation,
    elapsed_seconds: float,
    seconds: float,
    before: Before,
) -> Judgement:
    """Judge a candidate `elapsed_seconds` into a probation of `seconds`."""
    settled = evidence.settled
    if (found := _losses(evidence, limits)) is not None:
        return found
    if settled >= limits.min_rows:
        for rule in RULES:
            if (found := rule(evidence, limits, before)) is not None:
                return found
        if elapsed_seconds >= seconds:
            return Judgement(Verdict.COMMIT, numbers=(("rows", settled),))
    return Judgement(Verdict.CONTINUE, numbers=(("rows", settled),))


def _losses(evidence: Evidence, limits: Probation) -> Judgement | None:
    crashes, deadlines = evidence.crashes, evidence.deadlines
    if crashes + deadlines <= limits.max_crashes:
        return None
    return _bad(
        "worker-crashed" if crashes >= deadlines else "deadline-missed",
        f"{crashes} crashes and {deadlines} missed deadlines, "
        f"at most {limits.max_crashes} of both allowed",
        crashes=crashes,
        deadlines=deadlines,
    )


def _non_finite(evidence: Evidence, limits: Probation, before: Before) -> Judgement | None:
    settled = max(evidence.settled, 1)
    share = evidence.non_finite / settled
    if share - before.non_finite_ratio <= limits.max_failed_ratio:
        return None
    return _bad(
        "output-non-finite",
        f"{evidence.non_finite} of {settled} answers NaN or infinite "
        f"({share:.1%}, {before.non_finite_ratio:.1%} before), "
        f"a rise of at most {limits.max_failed_ratio:.1%} allowed",
        non_finite_ratio=share,
        non_finite_before=before.non_finite_ratio,
        rows=settled,
    )


def _failures(evidence: Evidence, limits: Probation, before: Before) -> Judgement | None:
    settled = max(evidence.settled, 1)
    failed = evidence.failed / settled
    if failed - before.failed_ratio <= limits.max_failed_ratio:
        return None
    return _bad(
        "rows-failed",
        f"{evidence.failed} of {settled} rows failed "
        f"({failed:.1%}, {before.failed_ratio:.1%} before), "
        f"a rise of at most {limits.max_failed_ratio:.1%} allowed",
        failed_ratio=failed,
        failed_before=before.failed_ratio,
        rows=settled,
    )


def _range(evidence: Evidence, limits: Probation, before: Before) -> Judgement | None:
    outside = evidence.out_of_range / max(evidence.answered, 1)
    if outside - before.out_of_range_ratio <= limits.max_out_of_range_ratio:
        return None
    return _bad(
        "output-out-of-range",
        f"{evidence.out_of_range} of {evidence.answered} answers outside their range "
        f"({outside:.1%}, {before.out_of_range_ratio:.1%} before), "
        f"a rise of at most {limits.max_out_of_range_ratio:.1%} allowed",
        out_of_range_ratio=outside,
        out_of_range_before=before.out_of_range_ratio,
        rows=evidence.answered,
    )


def _latency(evidence: Evidence, limits: Probation, before: Before) -> Judgement | None:
    before_us = before.latency_p95_us
    now_us = latency_quantile(list(evidence.latency_counts), 0.95)
    if not before_us or now_us <= max(before_us * limits.max_latency_ratio, LATENCY_FLOOR_US):
        return None
    return _bad(
        "latency",
        f"p95 latency {now_us / 1e3:.2f} ms, {before_us / 1e3:.2f} ms before, "
        f"at most {limits.max_latency_ratio:g} times, or {LATENCY_FLOOR_US / 1e3:g} ms, allowed",
        latency_p95_us=now_us,
        latency_before_us=before_us,
    )


def _memory(evidence: Evidence, limits: Probation, before: Before) -> Judgement | None:
    now, then = evidence.memory_bytes, before.memory_bytes
    if not then or now - then < MIN_MEMORY_RISE or now <= then * limits.max_memory_ratio:
        return None
    return _bad(
        "memory",
        f"worker takes {now / 2**20:.1f} MiB, {then / 2**20:.1f} MiB before, "
        f"at most {limits.max_memory_ratio:g} times allowed",
        memory_bytes=now,
        memory_before_bytes=then,
    )


RULES: tuple[Callable[[Evidence, Probation, Before], Judgement | None], ...] = (
    _non_finite,
    _failures,
    _range,
    _latency,
    _memory,
)
"""Judged in this order, once there are `min_rows` settled rows."""


def _bad(code: str, sentence: str, **numbers: float) -> Judgement:
    return Judgement(Verdict.ROLL_BACK, code, sentence, tuple(numbers.items()))
