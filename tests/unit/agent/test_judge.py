"""Judging probation: each verdict, at its limit and one past it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.judge import Before, Evidence, Verdict, judge, summarise_before
from agent.ports import WindowReport
from shoal.latency import LATENCY_FLOOR_US
from shoal.protocol.manifest import Probation
from shoal.protocol.messages import LATENCY_EDGES_US

LIMITS = Probation(
    seconds=60,
    min_rows=100,
    max_failed_ratio=0.02,
    max_out_of_range_ratio=0.2,
    max_latency_ratio=3.0,
    max_crashes=1,
)
BINS = len(LATENCY_EDGES_US) + 1


def _histogram(rows, edge):
    return tuple(rows if i == edge else 0 for i in range(BINS))


def _judge(evidence, limits=LIMITS, elapsed=100.0, before_us=0.0, outside_before=0.0):
    before = Before(before_us, outside_before)
    return judge(evidence, limits, elapsed, limits.seconds, before)


def _report(**changes: Any) -> WindowReport:
    values: dict[str, Any] = {
        "release": None,
        "facts": None,
        "start_ms": 0,
        "end_ms": 1000,
        "in_count": 0,
        "ok": 0,
        "dropped": {},
        "failed": {},
        "latency_counts": [0] * BINS,
        "latency_max_us": 0.0,
        "worker_restarts": 0,
        "labels": {},
        "out_of_range": 0,
        **changes,
    }
    return WindowReport(**values)


def test_enough_good_rows_for_long_enough_are_committed():
    found = _judge(Evidence(answered=100), elapsed=60.0)
    assert found.verdict is Verdict.COMMIT
    assert dict(found.numbers) == {"rows": 100}


@pytest.mark.parametrize(("rows", "elapsed"), [(99, 1e9), (100, 59.9), (10**6, 0.0), (0, 0.0)])
def test_too_few_rows_or_too_short_a_time_go_on(rows, elapsed):
    assert _judge(Evidence(answered=rows), elapsed=elapsed).verdict is Verdict.CONTINUE


@pytest.mark.parametrize("elapsed", [0.0, 100.0])
@pytest.mark.parametrize(("failed", "verdict"), [(2, None), (3, Verdict.ROLL_BACK)])
def test_failed_rows_above_the_ratio_roll_back_at_once(failed, verdict, elapsed):
    found = _judge(Evidence(answered=100 - failed, failed=failed), elapsed=elapsed)
    if verdict is None:
        assert found.verdict is (Verdict.COMMIT if elapsed >= 60 else Verdict.CONTINUE)
    else:
        assert (found.verdict, found.code) == (verdict, "rows-failed")
        assert "3 of 100 rows failed (3.0%, 0.0% before), a rise of at most 2.0%" in found.sentence
        assert dict(found.numbers) == {"failed_ratio": 0.03, "failed_before": 0.0, "rows": 100}


def test_a_device_whose_sensor_was_broken_before_is_judged_by_the_rise():
    broken = Evidence(answered=100, out_of_range=45)
    assert _judge(broken, outside_before=0.3).verdict is Verdict.COMMIT
    found = _judge(broken, outside_before=0.2)
    assert found.code == "output-out-of-range"
    assert "(45.0%, 20.0% before)" in found.sentence


def test_the_release_before_is_summed_over_its_last_windows():
    reports = [
        _report(ok=30, out_of_range=3, latency_counts=list(_histogram(30, 4))),
        _report(ok=10, out_of_range=5, latency_counts=list(_histogram(10, 4))),
    ]
    before = summarise_before(reports)
    assert before.out_of_range_ratio == 8 / 40
    assert before.latency_p95_us > 0
    assert summarise_before([]) == Before()


@pytest.mark.parametrize(("outside", "code"), [(20, ""), (21, "output-out-of-range")])
def test_answers_outside_their_range_above_the_ratio_roll_back(outside, code):
    found = _judge(Evidence(answered=100, out_of_range=outside))
    assert found.code == code
    assert (found.verdict is Verdict.ROLL_BACK) is bool(code)
    assert (
        not code or "21 of 100 answers outside their range (21.0%, 0.0% before)" in found.sentence
    )


def test_when_every_row_failed_nothing_is_divided_by_zero():
    assert _judge(Evidence(failed=100)).code == "rows-failed"


@pytest.mark.parametrize(("bins_slower", "code"), [(-4, ""), (0, ""), (3, ""), (4, "latency")])
def test_latency_is_compared_with_the_release_before(bins_slower, code):
    """Two bins are twice as slow: three are within the three times allowed, four are not."""
    evidence = Evidence(answered=100, latency_counts=_histogram(100, 12 + bins_slower))
    found = _judge(evidence, before_us=LATENCY_EDGES_US[12])
    assert found.code == code
    assert (found.verdict is Verdict.ROLL_BACK) is bool(code)


@pytest.mark.parametrize(("bin_", "code"), [(15, ""), (16, "latency")])
def test_a_latency_below_the_floor_is_never_too_slow(bin_, code):
    """From 14 µs to 1.8 ms: at that scale the scheduler decides."""
    assert LATENCY_EDGES_US[15] < LATENCY_FLOOR_US < LATENCY_EDGES_US[16]
    evidence = Evidence(answered=100, latency_counts=_histogram(100, bin_))
    found = _judge(evidence, before_us=LATENCY_EDGES_US[1])
    assert found.code == code
    assert not code or "at most 3 times, or 2 ms, allowed" in found.sentence


def test_p95_decides_not_the_slowest_row():
    counts = list(_histogram(95, 5))
    counts[39] = 5
    evidence = Evidence(answered=100, latency_counts=tuple(counts))
    assert _judge(evidence, before_us=LATENCY_EDGES_US[5]).verdict is Verdict.COMMIT
    counts[39] = 6
    evidence = Evidence(answered=101, latency_counts=tuple(counts))
    found = _judge(evidence, before_us=LATENCY_EDGES_US[5])
    assert found.code == "latency"
    assert dict(found.numbers)["latency_p95_us"] == LATENCY_EDGES_US[39]


def test_without_a_release_before_latency_is_not_judged():
    evidence = Evidence(answered=100, latency_counts=_histogram(100, BINS - 1))
    assert _judge(evidence, before_us=0.0).verdict is Verdict.COMMIT


@pytest.mark.parametrize(("crashes", "verdict"), [(1, Verdict.CONTINUE), (2, Verdict.ROLL_BACK)])
def test_crashes_roll_back_without_any_rows(crashes, verdict):
    found = _judge(Evidence(crashes=crashes), elapsed=0.0)
    assert found.verdict is verdict
    assert found.code == ("worker-crashed" if verdict is Verdict.ROLL_BACK else "")


@pytest.mark.parametrize("elapsed", [0.0, 100.0])
def test_an_author_who_asks_for_no_rows_gets_time_only(elapsed):
    limits = Probation(seconds=60, min_rows=0)
    verdict = Verdict.COMMIT if elapsed >= 60 else Verdict.CONTINUE
    assert _judge(Evidence(), limits, elapsed=elapsed).verdict is verdict


def test_evidence_adds_up_over_windows_and_crashes():
    first = _report(in_count=10, ok=7, dropped={"missing": 1}, failed={"a": 2}, out_of_range=3)
    counts = list(_histogram(5, 4))
    second = _report(in_count=9, ok=5, failed={"a": 1, "b": 3}, latency_counts=counts)
    evidence = Evidence().with_report(first).with_loss("worker-crashed").with_report(second)
    assert evidence == Evidence(
        answered=12,
        failed=6,
        out_of_range=3,
        crashes=1,
        latency_counts=_histogram(5, 4),
    )


counts = st.integers(0, 1000)


@given(counts, counts, counts, st.integers(0, 5), st.floats(0, 1000), st.floats(0, 1e6))
def test_any_evidence_gets_a_verdict_and_bad_ones_say_why(
    answered, failed, outside, crashes, elapsed, before_us
):
    evidence = Evidence(
        answered=answered,
        failed=failed,
        out_of_range=min(outside, answered),
        crashes=crashes,
        latency_counts=_histogram(answered, 20),
    )
    found = _judge(evidence, elapsed=elapsed, before_us=before_us)
    assert bool(found.code) is bool(found.sentence) is (found.verdict is Verdict.ROLL_BACK)
    if found.verdict is Verdict.COMMIT:
        assert answered + failed >= LIMITS.min_rows
        assert elapsed >= LIMITS.seconds
        assert crashes <= LIMITS.max_crashes
        assert failed <= LIMITS.max_failed_ratio * (answered + failed)


@given(counts, counts, st.integers(0, 1000))
def test_more_failures_never_make_a_release_better(answered, failed, more):
    order = [Verdict.ROLL_BACK, Verdict.CONTINUE, Verdict.COMMIT]
    few = _judge(Evidence(answered=answered + more, failed=failed))
    many = _judge(Evidence(answered=answered, failed=failed + more))
    assert order.index(many.verdict) <= order.index(few.verdict)
