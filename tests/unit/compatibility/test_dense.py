"""The numpy runtime's file: round trips, and a sentence for everything wrong with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.dense import BrokenDenseError, DenseNetwork, decode_dense, encode_dense

GOOD = {
    "format": "shoal-dense",
    "version": 1,
    "layers": [
        {"weights": [[0.5, -1.0], [0.25, 0.0]], "bias": [0.1, 0.0], "activation": "relu"},
        {"weights": [[1.0, -2.0]], "bias": [0.0]},
    ],
}


def test_weights_come_back_to_the_last_bit():
    draw = np.random.default_rng(1)
    weights = draw.normal(0, 1, (7, 5)).astype(np.float32)
    bias = draw.normal(0, 1e-8, 7).astype(np.float32)
    data = encode_dense([(weights, bias, "tanh")])
    assert data == encode_dense([(weights, bias, "tanh")])
    rows = draw.normal(0, 1, (9, 5)).astype(np.float32)
    found = DenseNetwork(decode_dense(data)).forward(rows)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.tanh(rows @ weights.T.copy() + bias))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("linear", [-1000.0, 0.0, 1000.0]),
        ("relu", [0.0, 0.0, 1000.0]),
        ("sigmoid", [0.0, 0.5, 1.0]),
        ("tanh", [-1.0, 0.0, 1.0]),
        ("softmax", [0.0, 0.0, 1.0]),
    ],
)
def test_every_activation_is_finite_at_its_ends(activation, expected):
    data = encode_dense([(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), activation)])
    rows = np.array([[-1000.0, 0.0, 1000.0]], np.float32)
    assert DenseNetwork(decode_dense(data)).forward(rows)[0].tolist() == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version"),
        ({"layers": []}, "length"),
        ({"layers": [{"weights": [[1.0]], "bias": [1.0], "activation": "magic"}]}, "magic"),
        ({"layers": [{"weights": [[1.0], [1.0, 2.0]], "bias": [1.0, 2.0]}]}, "layer 0: rows of"),
        ({"layers": [{"weights": [[1.0]], "bias": [1.0, 2.0]}]}, "2 biases for 1 outputs"),
        ({"layers": [*GOOD["layers"], GOOD["layers"][1]]}, "layer 2: expected 1 weights a row"),
        ({"layers": [{"weights": [["x"]], "bias": [1.0]}]}, "Expected `float`"),
    ],
)
def test_a_mistake_is_named(change, words):
    with pytest.raises(BrokenDenseError, match="dense network") as caught:
        decode_dense(json.dumps(GOOD | change).encode())
    assert words in caught.value.sentence
    assert caught.value.code == "bad-model"


def test_numbers_beyond_float32_are_refused():
    layers = [{"weights": [[1e300]], "bias": [0.0]}]
    with pytest.raises(BrokenDenseError, match="beyond float32"):
        DenseNetwork(decode_dense(json.dumps(GOOD | {"layers": layers}).encode()))


@given(st.binary(max_size=200))
def test_bytes_that_are_none_are_refused(data):
    with pytest.raises(BrokenDenseError):
        decode_dense(data)
