"""Judging a release in probation, purely from counts: commit, go on, or roll back.

Rolling back is possible as soon as there is enough evidence; committing needs both the time and
the rows that the manifest asks for. The limits are the author's (`Probation`), each verdict a
sentence with the number found, the limit and the sample size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from agent.ports import WindowReport
from shoal.latency import latency_quantile
from shoal.protocol.manifest import Probation


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
    out_of_range: int = 0
    crashes: int = 0
    latency_counts: tuple[int, ...] = ()

    def with_report(self, report: WindowReport) -> Evidence:
        """Add a closed window of the candidate."""
        before = self.latency_counts or (0,) * len(report.latency_counts)
        return replace(
            self,
            answered=self.answered + report.ok,
            failed=self.failed + sum(report.failed.values()),
            out_of_range=self.out_of_range + report.out_of_range,
            latency_counts=tuple(a + b for a, b in zip(before, report.latency_counts, strict=True)),
        )

    def with_crash(self) -> Evidence:
        """Add a lost worker: crash, missed deadline or out of memory."""
        return replace(self, crashes=self.crashes + 1)


@dataclass(frozen=True, slots=True)
class Before:
    """How the release before did on this device, over its last windows.

    A broken sensor or a slow machine is no fault of the candidate: it is judged by the rise.
    """

    latency_p95_us: float = 0.0
    """0 where no release ran before."""
    out_of_range_ratio: float = 0.0


def summarise_before(reports: Iterable[WindowReport]) -> Before:
    """The last windows of the release before as one."""
    evidence = Evidence()
    for report in reports:
        evidence = evidence.with_report(report)
    if not evidence.answered:
        return Before()
    return Before(
        latency_quantile(list(evidence.latency_counts), 0.95),
        evidence.out_of_range / evidence.answered,
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
    settled = evidence.answered + evidence.failed
    if evidence.crashes > limits.max_crashes:
        return _bad(
            "worker-crashed",
            f"{evidence.crashes} crashes or missed deadlines, at most {limits.max_crashes} allowed",
            crashes=evidence.crashes,
        )
    if settled >= limits.min_rows:
        found = _rates(evidence, limits, settled, before.out_of_range_ratio) or _latency(
            evidence, limits, before.latency_p95_us
        )
        if found is not None:
            return found
        if elapsed_seconds >= seconds:
            return Judgement(Verdict.COMMIT, numbers=(("rows", settled),))
    return Judgement(Verdict.CONTINUE, numbers=(("rows", settled),))


def _rates(
    evidence: Evidence, limits: Probation, settled: int, outside_before: float
) -> Judgement | None:
    failed = evidence.failed / max(settled, 1)
    if failed > limits.max_failed_ratio:
        return _bad(
            "rows-failed",
            f"{evidence.failed} of {settled} rows failed ({failed:.1%}), "
            f"at most {limits.max_failed_ratio:.1%} allowed",
            failed_ratio=failed,
            rows=settled,
        )
    outside = evidence.out_of_range / max(evidence.answered, 1)
    if outside - outside_before > limits.max_out_of_range_ratio:
        return _bad(
            "output-out-of-range",
            f"{evidence.out_of_range} of {evidence.answered} answers outside their range "
            f"({outside:.1%}, {outside_before:.1%} before), "
            f"a rise of at most {limits.max_out_of_range_ratio:.1%} allowed",
            out_of_range_ratio=outside,
            out_of_range_before=outside_before,
            rows=evidence.answered,
        )
    return None


def _latency(evidence: Evidence, limits: Probation, before_us: float) -> Judgement | None:
    if not before_us:
        return None
    now_us = latency_quantile(list(evidence.latency_counts), 0.95)
    if now_us <= before_us * limits.max_latency_ratio:
        return None
    return _bad(
        "latency",
        f"p95 latency {now_us / 1e3:.2f} ms, {before_us / 1e3:.2f} ms before, "
        f"at most {limits.max_latency_ratio:g} times allowed",
        latency_p95_us=now_us,
        latency_before_us=before_us,
    )


def _bad(code: str, sentence: str, **numbers: float) -> Judgement:
    return Judgement(Verdict.ROLL_BACK, code, sentence, tuple(numbers.items()))
