"""What the writers write, each installed runtime computes: float32 to 1e-5, int8 to a few steps."""

from __future__ import annotations

import numpy as np
import pytest

from agent.runtimes import adapters_of
from shoal.tflite.writer import forward, write_int8

pytestmark = pytest.mark.contract

SIZES = [(1, 1), (3, 5, 2), (6, 12, 4, 12, 6), (64, 16, 64), (5, 40, 40, 40, 3)]
FLOAT32_TOLERANCE = 1e-5
"""Of the largest activation: summing in another order moves the last bits."""
INT8_MOST_STEPS = 4.0
"""Of the output's 255, at worst; each hidden layer adds its own rounding."""
INT8_USUAL_STEPS = 2.0
"""Of the output's 255, for 95 answers of 100."""

for_tflite = pytest.mark.parametrize(
    "adapter",
    [one for one in adapters_of("tflite") if one.available()],
    ids=lambda one: one.name,
    indirect=True,
)


def _inputs(width, rows=400):
    return np.random.default_rng(7).normal(0, 1, (rows, width)).astype(np.float32)


@pytest.mark.parametrize("sizes", SIZES)
def test_float32_agrees_with_numpy(adapter, load, write, network, sizes):
    layers, inputs = network(sizes), _inputs(sizes[0])
    engine = load(write(adapter.kind, layers))
    activations = forward(layers, inputs)
    found = engine.run(inputs)
    assert found.shape == activations[-1].shape
    assert found.dtype == np.float32
    largest = max(float(np.abs(one).max()) for one in activations)
    assert np.abs(found - activations[-1]).max() <= FLOAT32_TOLERANCE * largest


@for_tflite
@pytest.mark.parametrize("sizes", SIZES)
def test_int8_agrees_with_numpy_inside_its_calibration(adapter, load, network, sizes):
    layers, inputs = network(sizes), _inputs(sizes[0])
    engine = load(write_int8(layers, inputs))
    expected = forward(layers, inputs)[-1]
    step = (max(float(expected.max()), 0.0) - min(float(expected.min()), 0.0)) / 255
    steps = np.abs(engine.run(inputs) - expected) / step
    assert steps.max() <= INT8_MOST_STEPS
    assert np.quantile(steps, 0.95) <= INT8_USUAL_STEPS


@for_tflite
def test_int8_stops_at_the_ends_of_its_calibration(adapter, load, network):
    layers, inputs = network((3, 2)), _inputs(3)
    engine = load(write_int8(layers, inputs))
    wild = np.array([[1e6, -1e6, np.inf], [-np.inf, 1e30, -1e30]], np.float32)
    expected = forward(layers, inputs)[-1]
    found = engine.run(wild)
    assert np.isfinite(found).all()
    assert found.max() <= max(float(expected.max()), 0.0) * 1.02
    assert found.min() >= min(float(expected.min()), 0.0) * 1.02


def test_an_engine_says_what_it_is_and_answers_the_same_each_time(adapter, load, write, network):
    engine = load(write(adapter.kind, network((6, 12, 4, 12, 6))))
    assert (engine.name, engine.input_values, engine.output_values) == (adapter.name, 6, 6)
    assert engine.version[0].isdigit()
    assert engine.kernels in {"xnnpack", "reference", "onnxruntime", "numpy"}
    inputs = _inputs(6)
    whole = engine.run(inputs)
    assert np.array_equal(engine.run(inputs), whole)
    assert np.allclose(engine.run(inputs[100:101]), whole[100:101], atol=1e-5)
    assert engine.run(inputs[:0]).shape == (0, 6)
