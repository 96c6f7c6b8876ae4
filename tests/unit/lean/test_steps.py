"""Steps without numpy give the numbers that `shoal.steps` gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lean import steps as lean
from shoal import steps as full
from shoal.errors import InvalidInputError
from shoal.protocol.manifest import Contract, Feature, OutputField
from shoal.protocol.steps import (
    Binarise,
    ClassScores,
    Clip,
    Dequantise,
    Log,
    OneHot,
    RawOutputs,
    ReconstructionError,
    Rescale,
    Scale,
    Sigmoid,
    Softmax,
    Spectrum,
    Threshold,
    WindowFeatures,
)

NAMES = ["a", "b", "c"]
STATISTICS = [
    *("mean", "std", "rms", "min", "max"),
    *("peak_to_peak", "crest", "kurtosis", "last"),
]
numbers = st.integers(-64000, 64000).map(lambda n: n / 64)  # squares of tiny ones vanish in float32
rows = st.lists(st.lists(numbers, min_size=3, max_size=3), max_size=12)
row_steps = st.lists(
    st.one_of(
        st.builds(
            Scale,
            mean=st.lists(numbers, min_size=3, max_size=3),
            std=st.lists(st.floats(0.5, 50.0), min_size=3, max_size=3),
        ),
        st.just(Clip(low=-2.0, high=3.5)),
        st.just(Log(offset=1.0)),
        st.just(Log(features=["b"], offset=2.0, floor=0.1)),
        st.just(Binarise(feature="c", above=1.0)),
    ),
    max_size=4,
)


def _contract(**more):
    outputs = more.pop("outputs", ["score"])
    return Contract(
        features=more.pop("features", [Feature(name=name) for name in NAMES]),
        outputs=[OutputField(name=name) for name in outputs],
        **more,
    )


def _same(found, expected):
    expected = np.asarray(expected, np.float64)
    found = np.asarray([list(one) for one in found], np.float64).reshape(expected.shape)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3, equal_nan=True)


@given(rows, row_steps, st.integers(1, 4), st.integers(1, 3))
def test_rows_become_the_same_tensors(table, steps, window, stride):
    contract = _contract(preprocess=steps, window_rows=window, stride_rows=stride)
    array = np.asarray(table, np.float32).reshape(-1, 3)
    _same(lean.preprocess(contract, array.tolist()), full.preprocess(contract, array))


@given(rows, st.lists(st.sampled_from(STATISTICS), min_size=1, max_size=9, unique=True))
def test_windows_have_the_same_statistics(table, names):
    contract = _contract(
        preprocess=[WindowFeatures(statistics=names)], window_rows=3, stride_rows=2
    )
    array = np.asarray(table, np.float32).reshape(-1, 3)
    _same(lean.preprocess(contract, array.tolist()), full.preprocess(contract, array))


def test_one_hot_moves_columns_for_the_steps_after_it():
    contract = _contract(
        preprocess=[OneHot(feature="a", values=[1.0, 2.0]), Binarise(feature="c", above=0.0)]
    )
    table = np.array([[1, 5, -1], [2, 6, 1], [3, 7, 0]], np.float32)
    _same(lean.preprocess(contract, table.tolist()), full.preprocess(contract, table))
    assert lean.preprocess(contract, table.tolist())[1] == [6.0, 1.0, 0.0, 1.0]


@given(
    st.lists(
        st.lists(st.one_of(numbers, st.just(math.nan), st.just(math.inf)), min_size=3, max_size=3),
        max_size=8,
    )
)
def test_missing_values_are_filled_or_make_the_row_unusable(table):
    features = [
        Feature(name="a", missing="fill", fill=7.0),
        Feature(name="b"),
        Feature(name="c", missing="fill", fill=-1.0),
    ]
    contract = _contract(features=features)
    array = np.asarray(table, np.float32).reshape(-1, 3)
    filled, usable = lean.fill_missing(contract, array.tolist())
    expected, wanted = full.fill_missing(contract, array)
    assert usable == wanted.tolist()
    _same(filled, expected)


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        ([ReconstructionError(), Threshold(above=0.5)], ["score"]),
        ([Softmax(), ClassScores(classes=["x", "y", "z"])], ["confidence"]),
        ([Sigmoid(), ClassScores(classes=["x"])], ["confidence"]),
        ([Dequantise(scale=0.1, zero=3.0), RawOutputs(fields=["u", "v", "w"])], ["v", "u"]),
        (
            [RawOutputs(fields=["u"]), Rescale(field="u", gain=2.0, offset=1.0),
             Threshold(field="u", above=0.0)],
            ["u"],
        ),
    ],
)  # fmt: skip
@given(
    table=st.lists(
        st.lists(numbers.map(lambda n: n / 256), min_size=3, max_size=3), min_size=1, max_size=6
    )
)
def test_tensors_become_the_same_answers(steps, outputs, table):
    contract = _contract(postprocess=steps, outputs=outputs)
    tensor = np.asarray(table, np.float32).reshape(-1, 3)
    inputs = np.zeros_like(tensor)
    values, labels = lean.postprocess(contract, inputs.tolist(), tensor.tolist())
    expected, wanted = full.postprocess(contract, inputs, tensor)
    _same(values, expected)
    assert (labels or []) == (wanted or [])


@pytest.mark.parametrize(
    "tensor",
    [[math.nan, 1.0, 2.0], [1.0, math.inf, 2.0], [-math.inf] * 3, [1.0, 5.0, 5.0]],
)
def test_numbers_that_are_none_answer_as_with_numpy(tensor):
    contract = _contract(
        postprocess=[Softmax(), ClassScores(classes=["x", "y", "z"])], outputs=["confidence"]
    )
    values, labels = lean.postprocess(contract, [[0.0] * 3], [tensor])
    with np.errstate(invalid="ignore"):
        expected, wanted = full.postprocess(
            contract, np.zeros((1, 3), np.float32), np.asarray([tensor], np.float32)
        )
    _same(values, expected)
    assert labels == wanted


def test_an_answer_that_no_step_gives_is_refused():
    with pytest.raises(InvalidInputError, match="no step gives output"):
        lean.postprocess(_contract(), [[0.0] * 3], [[1.0] * 3])


def test_a_reconstruction_of_another_width_is_refused():
    contract = _contract(postprocess=[ReconstructionError()])
    with pytest.raises(InvalidInputError, match="input 3 and output 2"):
        lean.postprocess(contract, [[0.0] * 3], [[1.0] * 2])


def test_a_fourier_transform_is_left_to_numpy():
    spectrum = _contract(preprocess=[Spectrum(bands=2)], window_rows=8)
    assert not lean.is_supported(spectrum)
    assert lean.is_supported(_contract(preprocess=[Clip(low=0.0, high=1.0)]))
    with pytest.raises(InvalidInputError, match="Spectrum needs numpy"):
        lean.preprocess(spectrum, [[0.0] * 3] * 8)
