"""What the writer writes, the installed runtime computes: float32 to 1e-5, int8 to a few steps."""

from __future__ import annotations

import numpy as np
import pytest

from agent.runtimes.tflite import ADAPTERS
from shoal.tflite.writer import forward, write_float32, write_int8

pytestmark = pytest.mark.contract

SIZES = [(1, 1), (3, 5, 2), (6, 12, 4, 12, 6), (64, 16, 64), (5, 40, 40, 40, 3)]
FLOAT32_TOLERANCE = 1e-5
"""Of the largest activation: summing in another order moves the last bits."""
INT8_MOST_STEPS = 4.0
"""Of the output's 255, at worst; each hidden layer adds its own rounding."""
INT8_USUAL_STEPS = 2.0
"""Of the output's 255, for 95 answers of 100."""


@pytest.fixture(
    params=[adapter for adapter in ADAPTERS if adapter.available()], ids=lambda a: a.name
)
def adapter(request):
    """Each runtime that is installed."""
    return request.param


def _inputs(width, rows=400):
    return np.random.default_rng(7).normal(0, 1, (rows, width)).astype(np.float32)


def _load(adapter, tmp_path, data):
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    return adapter.load(path, 1)


@pytest.mark.parametrize("sizes", SIZES)
def test_float32_agrees_with_numpy(adapter, network, tmp_path, sizes):
    layers, inputs = network(sizes), _inputs(sizes[0])
    engine = _load(adapter, tmp_path, write_float32(layers))
    activations = forward(layers, inputs)
    found = engine.run(inputs)
    assert found.shape == activations[-1].shape
    assert found.dtype == np.float32
    largest = max(float(np.abs(one).max()) for one in activations)
    assert np.abs(found - activations[-1]).max() <= FLOAT32_TOLERANCE * largest


@pytest.mark.parametrize("sizes", SIZES)
def test_int8_agrees_with_numpy_inside_its_calibration(adapter, network, tmp_path, sizes):
    layers, inputs = network(sizes), _inputs(sizes[0])
    engine = _load(adapter, tmp_path, write_int8(layers, inputs))
    expected = forward(layers, inputs)[-1]
    step = (max(float(expected.max()), 0.0) - min(float(expected.min()), 0.0)) / 255
    steps = np.abs(engine.run(inputs) - expected) / step
    assert steps.max() <= INT8_MOST_STEPS
    assert np.quantile(steps, 0.95) <= INT8_USUAL_STEPS


def test_int8_stops_at_the_ends_of_its_calibration(adapter, network, tmp_path):
    layers, inputs = network((3, 2)), _inputs(3)
    engine = _load(adapter, tmp_path, write_int8(layers, inputs))
    wild = np.array([[1e6, -1e6, np.inf], [-np.inf, 1e30, -1e30]], np.float32)
    expected = forward(layers, inputs)[-1]
    found = engine.run(wild)
    assert np.isfinite(found).all()
    assert found.max() <= max(float(expected.max()), 0.0) * 1.02
    assert found.min() >= min(float(expected.min()), 0.0) * 1.02


@pytest.mark.parametrize("write", [write_float32, lambda layers: write_int8(layers, _inputs(6))])
def test_an_engine_says_what_it_is_and_answers_the_same_each_time(
    adapter, network, tmp_path, write
):
    engine = _load(adapter, tmp_path, write(network((6, 12, 4, 12, 6))))
    assert (engine.name, engine.input_values, engine.output_values) == (adapter.name, 6, 6)
    assert engine.version[0].isdigit()
    assert engine.kernels in {"xnnpack", "reference"}
    inputs = _inputs(6)
    whole = engine.run(inputs)
    assert np.array_equal(engine.run(inputs), whole)
    assert np.array_equal(engine.run(inputs[100:101]), whole[100:101])
    assert engine.run(inputs[:0]).shape == (0, 6)
