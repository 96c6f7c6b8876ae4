"""Numbers on their way into and out of an integer tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.runtimes.base import RuntimeLoadError
from agent.runtimes.guard import Guard
from agent.runtimes.tensors import TensorCodec
from agent.runtimes.tflite import ADAPTERS, TfliteEngine


def _tensor(dtype, scale=0.0, zero=0, shape=(1, 3)):
    return TensorCodec("tensor", shape, dtype, scale, zero)


@given(
    arrays(np.float32, 20, elements=st.floats(-1000, 1000, width=32)),
    st.sampled_from([np.int8, np.uint8]),
    st.floats(2**-10, 10, width=32),
    st.integers(-100, 100),
)
def test_values_inside_the_range_come_back_within_half_a_step(values, dtype, scale, zero):
    limits = np.iinfo(dtype)
    zero = min(max(zero, limits.min), limits.max)
    tensor = _tensor(dtype, scale, zero)
    raw = tensor.encode(values)
    assert raw.dtype == dtype
    inside = np.clip(values, scale * (limits.min - zero), scale * (limits.max - zero))
    assert np.allclose(tensor.decode(raw), inside, atol=scale * 0.501, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32])
def test_wild_values_stop_at_the_ends(dtype):
    limits = np.iinfo(dtype)
    tensor = _tensor(dtype, 0.5, 3)
    wild = np.array([np.inf, -np.inf, 1e30, -1e30, 0.0], np.float32)
    assert tensor.encode(wild).tolist() == [limits.max, limits.min, limits.max, limits.min, 3]


@pytest.mark.parametrize("dtype", [np.float16, np.bool_, np.complex64])
def test_tensors_of_other_kinds_are_refused(dtype):
    with pytest.raises(RuntimeLoadError, match="expected float32 or integers"):
        _tensor(dtype)


def test_an_integer_tensor_without_scale_takes_numbers_as_they_are():
    tensor = _tensor(np.uint8)
    values = np.array([0, 1, 255, 256, -1], np.float32)
    raw = tensor.encode(values)
    assert raw.tolist() == [0, 1, 255, 255, 0]
    assert tensor.decode(raw).tolist() == [0.0, 1.0, 255.0, 255.0, 0.0]


def test_float32_is_left_alone():
    tensor = _tensor(np.float32)
    values = np.array([np.nan, np.inf, 1.5], np.float32)
    assert np.array_equal(tensor.encode(values), values, equal_nan=True)
    assert np.array_equal(tensor.decode(values), values, equal_nan=True)


class _Interpreter:
    """Doubles its input, or has the tensors it is told to have."""

    def __init__(self, inputs=((1, 3),), outputs=((1, 3),), delegated=None):
        self._inputs = [self._details(shape) for shape in inputs]
        self._outputs = [self._details(shape) for shape in outputs]
        self._delegated = delegated
        self._value = None

    def _details(self, shape):
        return {
            "index": 0,
            "name": "x",
            "shape": np.array(shape),
            "dtype": np.float32,
            "quantization": (0.0, 0),
        }

    def get_input_details(self):
        return self._inputs

    def get_output_details(self):
        return self._outputs

    def set_tensor(self, index, value):
        assert value.shape == tuple(self._inputs[0]["shape"])
        self._value = value * 2

    def invoke(self):
        assert self._value is not None

    def get_tensor(self, index):
        return self._value

    def _get_ops_details(self):
        if self._delegated is None:
            raise AttributeError
        return [{"op_name": "DELEGATE" if self._delegated else "FULLY_CONNECTED"}]


def test_rows_are_run_one_by_one_in_order():
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert np.array_equal(TfliteEngine(_Interpreter(), "fake", "1").run(rows), rows * 2)


def test_no_rows_give_no_answers():
    assert TfliteEngine(_Interpreter(), "fake", "1").run(np.empty((0, 3), np.float32)).shape == (
        0,
        3,
    )


@pytest.mark.parametrize(
    ("delegated", "kernels"), [(True, "xnnpack"), (False, "reference"), (None, "reference")]
)
def test_kernels_are_named_by_what_executes(delegated, kernels):
    assert TfliteEngine(_Interpreter(delegated=delegated), "fake", "1").kernels == kernels


@pytest.mark.parametrize(
    "tensors",
    [
        {"inputs": ()},
        {"inputs": ((1, 3), (1, 3))},
        {"outputs": ()},
        {"inputs": ((2, 3),)},
    ],
)
def test_a_model_of_another_shape_is_refused(tensors):
    with pytest.raises(RuntimeLoadError) as caught:
        TfliteEngine(_Interpreter(**tensors), "fake", "1")
    assert caught.value.code == "wrong-tensor"


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 1, 3)])
def test_rows_of_another_width_are_refused(shape):
    engine = Guard(TfliteEngine(_Interpreter(), "fake", "1"))
    with pytest.raises(RuntimeLoadError) as caught:
        engine.run(np.zeros(shape, np.float32))
    assert caught.value.code == "wrong-tensor"


def test_one_of_the_runtimes_is_installed_here():
    assert any(adapter.available() for adapter in ADAPTERS)
