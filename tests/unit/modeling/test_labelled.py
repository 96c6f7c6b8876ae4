"""Answers against labels: every row is matched by its time, and what is not is counted."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.cli.evaluate import read_run, report
from shoal.errors import InvalidInputError
from shoal.modeling.labelled import (
    LabelledRun,
    evaluate_run,
    join_runs,
    match_answers,
    z_score_alarms,
)
from shoal.times import parse_time_ms


def _run(labels, start=100):
    times = np.arange(start, start + 10 * len(labels), 10, dtype=np.int64)
    return LabelledRun("run.csv", times, np.array(labels, bool))


def _answers(*pairs):
    return [{"sample_ms": ms, "label": label} for ms, label in pairs]


def test_rates_are_over_answered_rows_and_the_rest_is_counted():
    run = _run([0, 1, 1, 0])
    answers = _answers(
        (100, "anomaly"), (110, "anomaly"), (120, "normal"), (100, "normal"), (115, "normal")
    )
    found = evaluate_run(run, match_answers(run, answers, "anomaly"))
    assert (found.rows, found.anomalies, found.answered) == (4, 2, 3)
    assert (found.answered_again, found.strangers) == (1, 1)
    assert found.quality.false_alarm_rate == 0.0  # the newest answer of row 100 counts
    assert found.quality.missed_alarm_rate == 0.5
    assert found.quality.f1 == pytest.approx(2 / 3)


def test_answers_outside_the_run_belong_to_another_one():
    run = _run([0, 1])
    assert match_answers(run, _answers((90, "anomaly"), (120, "anomaly")), "anomaly").strangers == 0


def test_order_of_rows_does_not_matter():
    run = LabelledRun("run.csv", np.array([30, 10, 20]), np.array([True, False, False]))
    answered = match_answers(
        run, _answers((10, "normal"), (20, "normal"), (30, "anomaly")), "anomaly"
    )
    assert answered.alarms.tolist() == [True, False, False]
    assert evaluate_run(run, answered).quality.f1 == 1.0


def test_runs_together_count_as_one():
    parts = []
    for start, label in ((100, "anomaly"), (500, "normal")):
        run = _run([1, 0], start)
        answers = _answers((start, label), (start + 10, "normal"))
        parts.append((run, match_answers(run, answers, "anomaly"), np.array([True, True])))
    whole = join_runs("all", parts)
    assert (whole.rows, whole.anomalies, whole.answered) == (4, 2, 4)
    assert whole.quality.missed_alarm_rate == 0.5
    assert whole.z_score is not None
    assert whole.z_score.false_alarm_rate == 1.0


def test_simple_rule_alarms_far_from_the_mean_and_bears_constant_columns():
    normal = np.random.default_rng(1).normal(0, 1, (1000, 3)).astype("f4")
    normal[:, 2] = 5.0
    rows = np.array([[0, 0, 5], [9, 9, 5]], "f4")
    assert z_score_alarms(normal, rows).tolist() == [False, True]


def test_run_is_read_with_times_as_the_device_reads_them(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("\ufeffdatetime;temp;anomaly\n2026-01-01 00:00:00;1;0.0\n\n1767225601000;2;1\n")
    run = read_run(path, "datetime", "anomaly")
    assert run.times_ms.tolist() == [1767225600000, 1767225601000]
    assert run.anomalous.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t;a\n5;0\n5;1\n", "line 3: the same time as line 2"),
        ("t;a\nnoon;0\n", "line 2: expected milliseconds or ISO 8601, got 'noon'"),
        ("t;a\n5;2\n", "expected only 0 and 1"),
        ("x;a\n5;1\n", "no column 't'"),
    ],
)
def test_run_that_cannot_be_matched_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "run.csv"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=words):
        read_run(path, "t", "a")


def test_report_names_rows_without_an_answer():
    run = _run([0, 1, 1, 0])
    page = report([evaluate_run(run, match_answers(run, _answers((110, "anomaly")), "anomaly"))])
    assert "run.csv: 3 rows without an answer, left out of the rates" in page


def test_times_without_an_offset_are_utc_everywhere(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    assert parse_time_ms("2026-01-01T00:00:00") == parse_time_ms("2026-01-01T00:00:00Z")
    assert parse_time_ms("1.5", 1000) == 1500
    for wrong in ("noon", "", None, []):
        with pytest.raises((ValueError, TypeError)):
            parse_time_ms(wrong)
