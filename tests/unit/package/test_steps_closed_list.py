"""Each step of the closed list does what its docstring says; what does not fit is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shoal.protocol.manifest import Contract, Feature, OutputField
from shoal.protocol.steps import (
    Binarise,
    Clip,
    Dequantise,
    Log,
    OneHot,
    RawOutputs,
    Rescale,
    Scale,
    Sigmoid,
    Spectrum,
    WindowFeatures,
    find_step_problems,
    input_values,
)
from shoal.steps import postprocess, preprocess
from shoal.units import UnitMismatchError, canonical, conversion


def _contract(*steps, names=("a", "b"), window_rows=1, stride_rows=1, post=()):
    return Contract(
        features=[Feature(name=name) for name in names],
        outputs=[OutputField(name="y")],
        window_rows=window_rows,
        stride_rows=stride_rows,
        preprocess=list(steps),
        postprocess=list(post),
    )


def _rows(*rows):
    return np.asarray(rows, np.float32)


def test_log_touches_the_features_it_names_and_has_a_floor():
    got = preprocess(_contract(Log(features=["b"], floor=1.0)), _rows([5, math.e], [5, -3]))
    assert got.tolist() == [[5, pytest.approx(1)], [5, 0]]


def test_one_hot_and_binarise_make_numbers_of_states():
    contract = _contract(Binarise(feature="b", above=10), OneHot(feature="a", values=[1, 2]))
    got = preprocess(contract, _rows([1, 11], [2, 10], [3, 0]))
    assert got.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert input_values(["a", "b"], 1, contract.preprocess) == 3


def test_window_features_say_what_a_window_is_like():
    step = WindowFeatures(statistics=["mean", "rms", "peak_to_peak", "crest", "last"])
    contract = _contract(step, names=("a",), window_rows=4, stride_rows=4)
    (got,) = preprocess(contract, _rows([1], [-1], [1], [-1]))
    assert got.tolist() == [0, 1, 2, 1, -1]
    assert input_values(["a"], 4, [step]) == 5


def test_a_constant_window_has_finite_features():
    step = WindowFeatures(statistics=["std", "crest", "kurtosis", "min", "max"])
    contract = _contract(step, names=("a",), window_rows=4, stride_rows=4)
    assert np.isfinite(preprocess(contract, np.zeros((4, 1), np.float32))).all()


def test_a_spectrum_shows_a_tone_in_its_band():
    step = Spectrum(bands=8)
    contract = _contract(step, names=("a",), window_rows=256, stride_rows=256)
    time = np.arange(256)
    tone = 3 * np.sin(2 * np.pi * 72 / 256 * time) + 100  # line 72 of 128: band 4
    (got,) = preprocess(contract, tone[:, None].astype(np.float32))
    assert got.argmax() == 4
    assert got[[0, 1, 2, 6, 7]].max() < 0.01


@pytest.mark.parametrize("step", [WindowFeatures(statistics=["rms", "last"]), Spectrum(bands=2)])
def test_too_few_rows_give_no_window(step):
    contract = _contract(step, window_rows=4)
    assert preprocess(contract, np.zeros((3, 2), np.float32)).shape == (0, 4)


def test_scaling_after_a_window_step_has_a_number_for_each_of_its_columns():
    steps = [WindowFeatures(statistics=["min", "max"]), Scale(mean=[1, 1], std=[2, 2])]
    contract = _contract(*steps, names=("a",), window_rows=2, stride_rows=2)
    assert preprocess(contract, _rows([1], [3])).tolist() == [[0, 1]]
    assert find_step_problems(["a"], 2, steps) == []


def test_outputs_come_back_into_the_units_of_people():
    post = [
        Dequantise(scale=0.5, zero=10),
        Sigmoid(),
        RawOutputs(fields=["y"]),
        Rescale(field="y", gain=100, offset=-20),
    ]
    values, labels = postprocess(_contract(post=post), _rows([0, 0]), _rows([10]))
    assert values.tolist() == [[30]]
    assert labels is None


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([Scale(mean=[1], std=[1])], "1 means and 1 deviations for 2 features"),
        ([Clip(low=1, high=1)], "must be below high"),
        ([Log(floor=0)], "floor: must be above 0"),
        ([Log(features=["x"])], "no feature 'x'"),
        ([OneHot(feature="a", values=[1]), Binarise(feature="a")], "no feature 'a'"),
        ([WindowFeatures(statistics=["mean"]), Log(features=["a"])], "after a step on windows"),
        ([Spectrum(bands=1), Spectrum(bands=1)], "a second step on windows"),
        ([Spectrum(bands=3)], "bands: 3, at most 2"),
    ],
)
def test_what_does_not_fit_is_a_sentence_with_its_key(steps, problem):
    found = find_step_problems(["a", "b"], 4, steps)
    assert any(problem in one and one.startswith("contract.preprocess[") for one in found), found


@pytest.mark.parametrize(
    ("value", "source", "target", "wanted"),
    [
        (32, "°F", "°C", 0), (100, "C", "K", 373.15), (-40, "°C", "°F", -40),
        (1013.25, "hPa", "bar", 1.01325), (1, "psi", "kPa", 6.894757), (1, "mbar", "Pa", 100),
        (36, "km/h", "m/s", 10), (1, "mph", "km/h", 1.609344), (1, "g", "m/s^2", 9.80665),
        (50, "%", "ratio", 0.5), (60, "rpm", "Hz", 1), (180, "deg", "rad", math.pi),
    ],
)  # fmt: skip
def test_units_convert(value, source, target, wanted):
    assert conversion(source, target).apply(value) == pytest.approx(wanted)
    assert conversion(target, source).apply(wanted) == pytest.approx(value)


def test_a_unit_that_nobody_names_is_taken_at_the_other_s_word():
    assert conversion("", "°C").is_identity
    assert conversion("bushel", "bushel").is_identity
    assert canonical(" degF ") == "°F"


@pytest.mark.parametrize(("source", "target"), [("°C", "bar"), ("bushel", "kg"), ("kg", "g")])
def test_what_cannot_be_converted_is_refused(source, target):
    with pytest.raises(UnitMismatchError, match=f"expected {target}"):
        conversion(source, target)
