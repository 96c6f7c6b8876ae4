"""The writer's files, read again through the schema: layout, quantisation, determinism."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tflite
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shoal.tflite.writer import Dense, forward, write_float32, write_int8

SIZES = [(1, 1), (3, 5, 2), (6, 12, 4, 12, 6)]


def _network(sizes, seed=0):
    random = np.random.default_rng(seed)
    last = len(sizes) - 2
    return [
        Dense(
            random.normal(0, 1, (outputs, inputs)).astype(np.float32),
            random.normal(0, 0.1, outputs).astype(np.float32),
            relu=number < last,
        )
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes))
    ]


def _inputs(width, rows=200, seed=1):
    return np.random.default_rng(seed).normal(0, 1, (rows, width)).astype(np.float32)


def _write(kind, layers):
    if kind == "float32":
        return write_float32(layers)
    return write_int8(layers, _inputs(layers[0].weights.shape[1]))


class _File:
    """What a test wants to know of a file."""

    def __init__(self, data):
        assert tflite.Model.ModelBufferHasIdentifier(data, 0)
        self.model = tflite.Model.GetRootAs(data, 0)
        self.graph = self.model.Subgraphs(0)
        self.tensors = [self.graph.Tensors(i) for i in range(self.graph.TensorsLength())]

    def names(self):
        return [tensor.Name().decode() for tensor in self.tensors]

    def values(self, name, dtype):
        tensor = self.tensors[self.names().index(name)]
        data = self.model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(data, dtype).reshape(tensor.ShapeAsNumpy())

    def quantisation(self, name):
        found = self.tensors[self.names().index(name)].Quantization()
        return found.ScaleAsNumpy(), found.ZeroPointAsNumpy()


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_file_lists_its_layers_in_order(kind, sizes):
    file = _File(_write(kind, _network(sizes)))
    layers = range(len(sizes) - 1)
    assert file.names() == [
        "input",
        *[f"{name}_{i}" for i in layers for name in ("weights", "bias", "layer")],
    ]
    assert file.graph.InputsAsNumpy().tolist() == [0]
    assert file.graph.OutputsAsNumpy().tolist() == [len(file.tensors) - 1]
    operators = [file.graph.Operators(i) for i in range(file.graph.OperatorsLength())]
    assert [one.InputsAsNumpy().tolist() for one in operators] == [
        [3 * i, 3 * i + 1, 3 * i + 2] for i in layers
    ]
    assert [one.OutputsAsNumpy().tolist() for one in operators] == [[3 * i + 3] for i in layers]
    shapes = [tensor.ShapeAsNumpy().tolist() for tensor in file.tensors]
    assert shapes[0] == [1, sizes[0]]
    assert shapes[3::3] == [[1, outputs] for outputs in sizes[1:]]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_relu_is_fused_where_a_layer_asks_for_it(kind):
    file = _File(_write(kind, _network((3, 5, 4, 2))))
    found = []
    for i in range(3):
        operator = file.graph.Operators(i)
        options = tflite.FullyConnectedOptions()
        options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
        found.append(options.FusedActivationFunction())
    relu, none = tflite.ActivationFunctionType.RELU, tflite.ActivationFunctionType.NONE
    assert found == [relu, relu, none]


@pytest.mark.parametrize(("kind", "runtime"), [("float32", b"1.5.0"), ("int8", b"1.14.0")])
def test_a_file_says_which_runtime_it_needs_and_has_one_signature(kind, runtime):
    model = _File(_write(kind, _network((3, 5, 2)))).model
    assert model.Version() == 3
    assert model.Metadata(0).Name() == b"min_runtime_version"
    told = model.Buffers(model.Metadata(0).Buffer()).DataAsNumpy().tobytes()
    assert told.rstrip(b"\0") == runtime
    signature = model.SignatureDefs(0)
    assert signature.SignatureKey() == b"serving_default"
    assert signature.Inputs(0).Name() == b"input"
    assert signature.Outputs(0).TensorIndex() == 6
    assert model.OperatorCodes(0).BuiltinCode() == tflite.BuiltinOperator.FULLY_CONNECTED
    assert model.OperatorCodesLength() == 1


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_every_buffer_with_data_is_aligned_to_16_bytes(kind):
    data = _write(kind, _network((6, 12, 4, 12, 6)))
    model = _File(data).model
    assert model.Buffers(0).DataLength() == 0  # the schema's convention for "no data"
    for number in range(1, model.BuffersLength()):
        buffer = model.Buffers(number)
        assert buffer.DataLength() > 0
        start = data.index(buffer.DataAsNumpy().tobytes())
        assert start % 16 == 0


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_same_network_same_bytes(kind):
    first, second = (_write(kind, _network((6, 12, 6))) for _ in range(2))
    assert first == second
    assert first != _write(kind, _network((6, 12, 6), seed=1))


def test_float32_keeps_every_bit():
    layers = _network((3, 5, 2))
    file = _File(write_float32(layers))
    for number, layer in enumerate(layers):
        assert np.array_equal(file.values(f"weights_{number}", "<f4"), layer.weights)
        assert np.array_equal(file.values(f"bias_{number}", "<f4"), layer.bias)


def test_layers_in_float64_or_transposed_are_written_as_what_they_hold():
    (layer,) = _network((3, 2))
    other = Dense(np.asfortranarray(layer.weights.astype(np.float64)), layer.bias.astype(">f4"))
    assert write_float32([other]) == write_float32([layer])


@pytest.mark.parametrize("sizes", SIZES)
def test_int8_weights_are_symmetric_per_channel_and_off_by_half_a_step(sizes):
    layers = _network(sizes)
    file = _File(_write("int8", layers))
    for number, layer in enumerate(layers):
        scales, zeros = file.quantisation(f"weights_{number}")
        assert not zeros.any()
        weights = file.values(f"weights_{number}", np.int8).astype(np.float64)
        assert np.abs(weights).max() == 127
        error = np.abs(weights * scales[:, None] - layer.weights)
        assert (error <= scales[:, None] / 2 * 1.0001).all()


@pytest.mark.parametrize("sizes", SIZES)
def test_int8_biases_have_the_scale_of_input_times_weight(sizes):
    layers = _network(sizes)
    file = _File(_write("int8", layers))
    for number, layer in enumerate(layers):
        before = "input" if number == 0 else f"layer_{number - 1}"
        (input_scale,), _ = file.quantisation(before)
        weight_scales, _ = file.quantisation(f"weights_{number}")
        scales, zeros = file.quantisation(f"bias_{number}")
        assert scales == pytest.approx(input_scale * weight_scales, rel=1e-6)
        assert not zeros.any()
        bias = file.values(f"bias_{number}", "<i4")
        assert bias * scales == pytest.approx(layer.bias, abs=float(scales.max()) * 0.51)


def test_int8_activations_span_the_calibration_with_zero_in_it():
    layers, inputs = _network((3, 5, 2)), _inputs(3)
    file = _File(write_int8(layers, inputs))
    for name, values in zip(
        ["input", "layer_0", "layer_1"], [inputs, *forward(layers, inputs)], strict=True
    ):
        scale, zero = (float(one.item()) for one in file.quantisation(name))
        lowest, highest = scale * (-128 - zero), scale * (127 - zero)
        assert lowest <= 0 <= highest
        assert lowest == pytest.approx(min(float(values.min()), 0), abs=scale)
        assert highest == pytest.approx(max(float(values.max()), 0), abs=scale)


def test_a_dead_layer_can_be_quantised():
    layers = [Dense(np.zeros((2, 3), np.float32), np.zeros(2, np.float32))]
    file = _File(write_int8(layers, np.zeros((4, 3), np.float32)))
    for name in ("input", "weights_0", "bias_0", "layer_0"):
        scales, _ = file.quantisation(name)
        assert (scales > 0).all()
    assert not file.values("weights_0", np.int8).any()


values = st.floats(-100, 100, width=32)


@given(
    arrays(np.float32, (4, 3), elements=values),
    arrays(np.float32, (2, 3), elements=values),
    arrays(np.float32, (2,), elements=values),
)
def test_forward_is_the_sum_of_products_with_relu(inputs, weights, bias):
    first, second = forward(
        [Dense(weights, bias, relu=True), Dense(np.eye(2, dtype=np.float32), -bias)], inputs
    )
    for row in range(4):
        for channel in range(2):
            total = sum(float(inputs[row, i]) * float(weights[channel, i]) for i in range(3))
            expected = max(total + float(bias[channel]), 0.0)
            assert first[row, channel] == pytest.approx(expected, rel=1e-4, abs=0.1)
    assert np.allclose(second, first - bias, rtol=1e-4, atol=0.1)
    assert first.dtype == second.dtype == np.float32
