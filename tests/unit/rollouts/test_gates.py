"""Gates: each verdict at its limit, and nothing judged from too little."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rollouts.evidence import summarise
from controller.rollouts.gates import Compared, Evidence, change, evaluate
from shoal.protocol.manifest import Gates
from shoal.protocol.messages import FieldStatistics

LIMITS = Gates(max_failed_ratio=0.02, max_latency_ratio=1.5, max_prediction_shift=0.5, min_rows=100)
CALM, MOVED = {"normal": 950, "anomaly": 50}, {"normal": 500, "anomaly": 500}
SLOW = 20  # index of a latency bin well above the floor


def _evidence(device="gw-1", answered=1000, latency=SLOW, **changes):
    counts = tuple([0] * latency + [answered])
    base = Evidence(device, answered=answered, answers=answered, latency_counts=counts, labels=CALM)
    return replace(base, **changes)


def _judge(wave, control=(), before=None, limits=LIMITS, max_out_of_range=0.2):
    if before is None:
        before = {one.device: _evidence(one.device) for one in [*wave, *control]}
    found = Compared(list(wave), list(control), before, bool(control))
    return {one.name: one for one in evaluate(limits, max_out_of_range, found)}


def _verdicts(*args, **kwargs):
    return {name: one.verdict for name, one in _judge(*args, **kwargs).items()}


def test_a_release_like_the_one_before_passes_every_gate():
    assert _verdicts([_evidence()], [_evidence("gw-9")]) == {
        "enough data": "pass",
        "failed rows": "pass",
        "answers out of range": "pass",
        "latency": "pass",
        "prediction shift": "pass",
    }


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [([100], "pass"), ([99], "inconclusive"), ([100, 0], "pass"), ([100, 0, 0], "inconclusive"),
     ([], "inconclusive"), ([0], "inconclusive")],
)  # fmt: skip
def test_half_the_wave_must_have_answered_enough_rows(rows, verdict):
    wave = [_evidence(f"gw-{number}", answered=count) for number, count in enumerate(rows)]
    found = _judge(wave)
    assert found["enough data"].verdict == verdict
    if verdict == "inconclusive":
        assert list(found) == ["enough data"]


@pytest.mark.parametrize(("failed", "verdict"), [(0, "pass"), (20, "pass"), (21, "fail")])
def test_the_worst_device_decides_on_failed_rows(failed, verdict):
    bad = _evidence("gw-2", answered=1000 - failed, failed=failed)
    found = _judge([_evidence(), bad, _evidence("gw-3")])["failed rows"]
    assert found.verdict == verdict
    if failed:
        assert "(gw-2)" in found.sentence


def test_a_device_that_fails_every_row_fails_the_gate():
    assert _verdicts([_evidence(answered=0, failed=500)])["failed rows"] == "fail"


@pytest.mark.parametrize(
    ("before", "now", "verdict"), [(0, 200, "pass"), (0, 201, "fail"), (900, 1000, "pass")]
)
def test_only_the_rise_of_answers_out_of_range_counts(before, now, verdict):
    """A sensor that was broken before is broken under any release."""
    past = {"gw-1": _evidence(out_of_range=before)}
    wave = [_evidence(out_of_range=now)]
    assert _verdicts(wave, before=past)["answers out of range"] == verdict


def test_one_broken_sensor_of_three_does_not_fail_the_wave():
    wave = [_evidence(), _evidence("gw-2"), _evidence("gw-3", out_of_range=1000)]
    assert _verdicts(wave)["answers out of range"] == "pass"


@pytest.mark.parametrize(("bins", "verdict"), [(0, "pass"), (1, "pass"), (2, "fail")])
def test_latency_is_compared_with_the_same_device_before(bins, verdict):
    """A bin is a factor of √2, the limit 1.5."""
    assert _verdicts([_evidence(latency=SLOW + bins)])["latency"] == verdict


def test_a_latency_below_the_floor_passes_whatever_it_was():
    past = {"gw-1": _evidence(latency=0)}
    found = _judge([_evidence(latency=12)], before=past)["latency"]
    assert (found.verdict, found.value) == ("pass", pytest.approx(64, rel=0.01))


def test_nothing_to_compare_with_is_not_judged():
    found = _verdicts([_evidence()], before={})
    assert (found["latency"], found["prediction shift"]) == ("not-judged", "not-judged")
    assert found["failed rows"] == "pass"


def test_the_last_wave_has_no_control_and_its_predictions_are_not_judged():
    assert _verdicts([_evidence(labels=MOVED)])["prediction shift"] == "not-judged"


def test_a_control_that_reports_too_little_is_inconclusive():
    quiet = _evidence("gw-9", answered=10)
    assert _verdicts([_evidence()], [quiet])["prediction shift"] == "inconclusive"


def test_predictions_that_moved_fail_and_the_sentence_says_by_how_much():
    found = _judge([_evidence(labels=MOVED)], [_evidence("gw-9")])["prediction shift"]
    assert found.verdict == "fail"
    assert found.value > LIMITS.max_prediction_shift
    assert "the control's by 0.00" in found.sentence


def test_a_control_that_moved_alike_clears_the_release():
    """Weather moves both."""
    wave, control = [_evidence(labels=MOVED)], [_evidence("gw-9", labels=MOVED)]
    assert _verdicts(wave, control)["prediction shift"] == "pass"


def test_one_device_with_odd_data_does_not_decide_for_three():
    wave = [_evidence(), _evidence("gw-2"), _evidence("gw-3", labels=MOVED)]
    assert _verdicts(wave, [_evidence("gw-9")])["prediction shift"] == "pass"


def test_outputs_compare_only_in_the_same_bins():
    before = Evidence("gw-1", outputs={"y": [90, 10]}, baseline="a")
    assert change(before, replace(before, outputs={"y": [10, 90]})) > 1
    assert change(before, replace(before, baseline="b")) is None
    assert change(before, replace(before, outputs={"z": [10, 90]})) is None
    assert change(before, replace(before, outputs={"y": [1, 2, 3]})) is None
    assert change(before, replace(before, outputs={"y": [0, 0]})) is None


@pytest.mark.parametrize("counts", [{}, {"normal": 0}, {"normal": 0, "anomaly": 0}])
def test_labels_that_count_nothing_compare_with_nothing(counts):
    one = Evidence("gw-1", labels=CALM)
    assert change(one, replace(one, labels=counts)) is None
    assert change(replace(one, labels=counts), one) is None


def test_a_new_label_weighs_a_little_and_never_infinitely():
    one = Evidence("gw-1", labels=CALM)
    assert 0 < change(one, replace(one, labels=CALM | {"broken": 20})) < 0.5


COUNTS = st.integers(0, 10**6)
EVIDENCE = st.builds(
    Evidence,
    device=st.sampled_from(["gw-1", "gw-2", "gw-3"]),
    answered=COUNTS,
    failed=COUNTS,
    out_of_range=COUNTS,
    answers=COUNTS,
    latency_counts=st.lists(COUNTS, max_size=60).map(tuple),
    labels=st.dictionaries(st.sampled_from("abc"), COUNTS, max_size=3),
    outputs=st.dictionaries(st.sampled_from("xy"), st.lists(COUNTS, max_size=4), max_size=2),
    baseline=st.sampled_from(["", "a", "b"]),
)
MANY = st.lists(EVIDENCE, max_size=4)


@given(
    wave=MANY,
    control=MANY,
    past=MANY,
    min_rows=st.integers(-1, 200),
)
def test_whatever_devices_count_every_gate_gives_a_verdict(wave, control, past, min_rows):
    limits = msgspec.structs.replace(LIMITS, min_rows=min_rows)
    before = {one.device: one for one in past}
    for gate in _judge(wave, control, before, limits).values():
        assert gate.verdict in ("pass", "fail", "inconclusive", "not-judged")
        assert gate.sentence
        assert gate.value is None or math.isfinite(gate.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_never_passes(value):
    found = _verdicts([_evidence(out_of_range=value, answers=1)], before={})
    assert found["answers out of range"] == "fail"


# What evidence is made of


def _window(ok=10, failed=None, labels=None, latency=(0, 3)):
    return SimpleNamespace(
        ok=ok, failed=failed or {}, labels=labels or {}, latency_counts=list(latency)
    )


def _statistics(baseline="b", **changes):
    field = FieldStatistics(name="y", count=10, bins=[6, 4], **changes)
    return SimpleNamespace(baseline=baseline, outputs=[msgspec.to_builtins(field)])


def test_windows_and_statistics_of_a_device_add_up():
    windows = [_window(labels={"a": 4}), _window(5, {"timeout": 2, "nan": 1}, {"a": 1, "b": 2})]
    counted = [_statistics(out_of_range=3, nonfinite=1), _statistics(out_of_range=1)]

    found = summarise("gw-1", windows, counted)

    assert found == Evidence(
        "gw-1",
        answered=15,
        failed=3,
        out_of_range=5,
        answers=21,
        latency_counts=(0, 6),
        labels={"a": 5, "b": 2},
        outputs={"y": [12, 8]},
        baseline="b",
        moments={"y": (0.0, 0.0)},
    )


def test_statistics_in_different_bins_have_no_baseline_to_compare_in():
    assert summarise("gw-1", [_window()], [_statistics("a"), _statistics("b")]).baseline == ""


def test_a_device_that_reported_nothing_is_evidence_of_nothing():
    assert summarise("gw-1", [], []) == Evidence("gw-1")
