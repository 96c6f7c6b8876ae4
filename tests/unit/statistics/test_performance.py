"""Accuracy without labels: right under covariate shift, and silent where nothing tells it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from shoal.baseline import Calibration, decode_baseline, encode_baseline
from shoal.errors import InvalidInputError
from shoal.modeling.build import Draft, Labelled, build_package
from shoal.performance import (
    MIN_LABELLED,
    Estimate,
    Refusal,
    calibrate,
    estimate,
    estimate_fleet,
    in_words,
    score_output,
)
from shoal.protocol.manifest import (
    ClassScores,
    Contract,
    Feature,
    OutputField,
    RawOutputs,
    Softmax,
    Threshold,
    Variant,
)
from shoal.protocol.messages import FieldStatistics
from shoal.statistics import Accumulator, make_baseline
from shoal.steps import postprocess

CLASSES = ["off", "on"]
CONTRACT = Contract(
    features=[Feature(name="x")],
    outputs=[OutputField(name="confidence", low=0.0, high=1.0)],
    postprocess=[Softmax(), ClassScores(classes=CLASSES)],
)
SHARPNESS = 3.0
"""Logits are three times the true ones: sure of itself, so scores are no probabilities."""


def forward(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([-rows, rows], axis=1) * SHARPNESS


def draw(seed: int, count: int, middle: float, spread: float) -> tuple[np.ndarray, list[str]]:
    """Rows, and labels that are on with probability 1 / (1 + e^-2x): the concept stays."""
    random = np.random.default_rng(seed)
    rows = random.normal(middle, spread, (count, 1)).astype(np.float32)
    on = random.random(count) < 1 / (1 + np.exp(-2 * rows[:, 0]))
    return rows, [CLASSES[int(one)] for one in on]


@pytest.fixture(scope="module")
def draft() -> Draft:
    return Draft(
        model="switch", version="1.0.0", sequence=1, contract=CONTRACT,
        rows=draw(1, 5000, 0, 1.5)[0],
        variants=[Variant(name="m", file="m.tflite")], files={"m.tflite": b"\0\0\0\0TFL3"},
        forward=forward, labelled=Labelled(*draw(2, 5000, 0, 1.5)),
    )  # fmt: skip


def baseline_of(draft: Draft) -> Any:
    return decode_baseline(build_package(draft).files["baseline.json"])


def observe(baseline: Any, rows: np.ndarray, labels: list[str]) -> tuple[list[Any], float]:
    """Statistics as a device sends them, and the accuracy that nobody there knows."""
    outputs, given = postprocess(CONTRACT, rows, forward(rows))
    counted = Accumulator(["confidence"], [baseline.outputs[0].edges], [(0.0, 1.0)])
    counted.update(outputs)
    return counted.take(), float(np.mean([a == b for a, b in zip(labels, given, strict=True)]))


@pytest.mark.parametrize(("middle", "spread"), [(0, 1.5), (0, 0.7), (1.0, 1.0), (0, 3.0)])
def test_accuracy_under_covariate_shift_is_inside_the_stated_interval(
    draft: Draft, middle: float, spread: float
) -> None:
    baseline = baseline_of(draft)
    inside = 0
    for seed in range(20):
        outputs, truth = observe(baseline, *draw(100 + seed, 3000, middle, spread))
        found = estimate(CONTRACT, baseline, {}, outputs)
        assert isinstance(found, Estimate)
        assert found.method == "calibrated"
        assert found.accuracy == pytest.approx(truth, abs=0.04)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth <= found.high
    assert inside >= 16


def test_it_beats_the_assumption_that_nothing_changed(draft: Draft) -> None:
    baseline = baseline_of(draft)
    outputs, truth = observe(baseline, *draw(7, 5000, 0, 0.5))
    found = estimate(CONTRACT, baseline, {}, outputs)
    assert isinstance(found, Estimate)
    assert found.reference - truth > 0.1
    assert abs(found.accuracy - truth) < 0.03


def test_without_labelled_rows_the_cards_accuracy_moves_with_the_confidence(draft: Draft) -> None:
    baseline = baseline_of(replace(draft, labelled=None))
    easy, _ = observe(baseline, *draw(8, 3000, 0, 1.5))
    hard, _ = observe(baseline, *draw(8, 3000, 0, 0.5))
    same, worse = (estimate(CONTRACT, baseline, {"accuracy": 0.8}, one) for one in (easy, hard))
    assert isinstance(same, Estimate)
    assert isinstance(worse, Estimate)
    assert same.accuracy == pytest.approx(0.8, abs=0.02)
    assert worse.accuracy < 0.75
    assert "confidence moves as accuracy does" in in_words(worse)


def test_cannot_tell_without_scores_reference_or_data(draft: Draft) -> None:
    plain = baseline_of(replace(draft, labelled=None))
    outputs, _ = observe(plain, *draw(9, 3000, 0, 1.5))
    few, _ = observe(plain, *draw(9, 100, 0, 1.5))
    no_scores = msgspec.structs.replace(CONTRACT, postprocess=[RawOutputs(fields=["confidence"])])
    threshold = Threshold(field="confidence", above=0.9)
    by_limit = msgspec.structs.replace(CONTRACT, postprocess=[*no_scores.postprocess, threshold])
    card = {"accuracy": 0.8}
    found = [
        estimate(no_scores, plain, card, outputs),
        estimate(CONTRACT, plain, {}, outputs),
        estimate(CONTRACT, plain, {"accuracy": 80.0}, outputs),
        estimate(CONTRACT, plain, card, few),
        estimate(CONTRACT, plain, card, []),
        estimate(by_limit, plain, card, outputs),
    ]
    codes = [one.code for one in found if isinstance(one, Refusal)]
    assert codes == [
        "no-scores", "no-reference", "no-reference", "too-little-data", "no-scores",
        "no-confidence",
    ]  # fmt: skip
    assert in_words(found[0]).startswith("Cannot tell: ")


def test_scores_that_no_labelled_row_had_are_not_guessed_at(draft: Draft) -> None:
    baseline = baseline_of(draft)
    known = baseline.calibration
    odd = FieldStatistics(name="confidence", count=1000, mean=0.4, bins=[100, *[90] * 10, 0])
    found = estimate(CONTRACT, baseline, {}, [odd])
    assert known.counts[0] < MIN_LABELLED
    assert isinstance(found, Refusal)
    assert found.code == "unknown-scores"
    little = FieldStatistics(name="confidence", count=1000, mean=0.4, bins=[40, *[96] * 10, 0])
    wide = estimate(CONTRACT, baseline, {}, [little])
    assert isinstance(wide, Estimate)
    assert wide.low is not None
    assert wide.high is not None
    assert wide.high - wide.low > 0.04


@pytest.mark.parametrize("mean", [float("nan"), float("inf"), -1e300])
def test_impossible_statistics_are_refused(draft: Draft, mean: float) -> None:
    baseline = baseline_of(draft)
    hostile = FieldStatistics(name="confidence", count=1000, mean=mean, bins=[0] * 12)
    assert isinstance(estimate(CONTRACT, baseline, {"accuracy": 0.8}, [hostile]), Refusal)


def test_the_device_is_the_unit_of_a_fleets_interval() -> None:
    def device(accuracy: float) -> Estimate:
        return Estimate(accuracy, None, None, 0.9, "calibrated", 10_000, 1e-6)

    alike = estimate_fleet([device(0.80), device(0.81), device(0.79), device(0.80)])
    apart = estimate_fleet([device(0.95), device(0.60), device(0.75), device(0.90)])
    few = estimate_fleet([device(0.80), device(0.81)])
    assert alike.accuracy == pytest.approx(0.80)
    assert alike.low is not None and alike.high is not None  # noqa: PT018
    assert apart.low is not None and apart.high is not None  # noqa: PT018
    assert alike.high - alike.low < 0.05 < 0.2 < apart.high - apart.low
    assert (few.low, few.high) == (None, None)
    assert "(" not in in_words(few)


def test_labelled_rows_are_counted_once_and_missing_ones_left_out(draft: Draft) -> None:
    labelled = Labelled(np.array([[2.0], [np.nan], [-2.0], [1.0]], np.float32), ["on"] * 4)
    known = baseline_of(replace(draft, labelled=labelled)).calibration
    assert (sum(known.counts), sum(known.correct)) == (3, 2)


@pytest.mark.parametrize(
    ("contract", "labels", "sentence"),
    [
        (CONTRACT, ["yes", "no"], "none has a label that the model gave"),
        (
            msgspec.structs.replace(CONTRACT, postprocess=[RawOutputs(fields=["confidence", "b"])]),
            ["on", "off"], "expected a class_scores or threshold step",
        ),
    ],
)  # fmt: skip
def test_labelled_rows_that_do_not_fit_are_refused(
    draft: Draft, contract: Contract, labels: list[str], sentence: str
) -> None:
    labelled = Labelled(np.array([[2.0], [-2.0]], np.float32), labels)
    with pytest.raises(InvalidInputError, match=sentence):
        build_package(replace(draft, contract=contract, labelled=labelled))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"output": "other"}, "no such output"),
        ({"counts": [1]}, "bins, expected 12"),
        ({"counts": [0] * 12, "correct": [0] * 12}, "no labelled rows"),
        ({"correct": [9] * 12}, "more right answers than answers"),
    ],
)
def test_a_damaged_calibration_is_refused(
    draft: Draft, change: dict[str, Any], sentence: str
) -> None:
    baseline = baseline_of(draft)
    sound = Calibration(output="confidence", counts=[1] * 12, correct=[1] * 12)
    bad = msgspec.structs.replace(sound, **change)
    with pytest.raises(InvalidInputError, match=sentence):
        decode_baseline(encode_baseline(msgspec.structs.replace(baseline, calibration=bad)))


def test_a_threshold_on_an_output_has_scores_too() -> None:
    contract = Contract(
        features=[Feature(name="x")], outputs=[OutputField(name="score")],
        postprocess=[RawOutputs(fields=["score"]), Threshold(above=1.0)],
    )  # fmt: skip
    assert score_output(contract) == "score"
    [field] = baseline_from_scores([0.5, 1.5] * 20)
    known = calibrate(field, [0.5, 0.5, 1.5, float("nan")], [True, False, True, True])
    assert (sum(known.counts), sum(known.correct)) == (3, 2)


def baseline_from_scores(scores: list[float]) -> Any:
    column = np.array(scores, np.float32)[:, None]
    return make_baseline(column[:, :0], column, [], ["score"]).outputs
