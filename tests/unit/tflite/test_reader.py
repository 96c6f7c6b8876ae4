"""Reading `.tflite` files: what they need, and one clear error for whatever is wrong with them."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
import tflite
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import InvalidInputError
from shoal.tflite.flatbuffer import MAX_ITEMS, BrokenFileError, Source
from shoal.tflite.operators import NAMES, known_operators, operator_name
from shoal.tflite.reader import TYPES, read_model
from shoal.tflite.writer import Dense, write_float32, write_int8

SIZES = (6, 12, 4, 6)


def _layers():
    draw = np.random.default_rng(3)
    return [
        Dense(draw.normal(0, 1, (b, a)).astype("f4"), draw.normal(0, 1, b).astype("f4"), relu=True)
        for a, b in itertools.pairwise(SIZES)
    ]


def _inputs():
    return np.random.default_rng(4).normal(0, 1, (50, SIZES[0])).astype("f4")


FLOAT32, INT8 = write_float32(_layers()), write_int8(_layers(), _inputs())


def test_says_what_a_float_file_is():
    facts = read_model(FLOAT32)
    assert facts.file_bytes == len(FLOAT32)
    assert facts.operators == {"FULLY_CONNECTED": 1}
    assert (facts.operator_count, facts.tensor_count) == (3, 10)
    assert facts.min_runtime == "1.5.0"
    assert [str(t) for t in facts.inputs + facts.outputs] == [
        "input float32 1×6",
        "layer_2 float32 1×6",
    ]
    weights = 4 * sum(a * b + b for a, b in itertools.pairwise(SIZES))
    assert facts.weight_bytes - 16 == weights  # and the metadata
    assert facts.peak_bytes == 4 * (6 + 12)  # a layer's input and output
    assert not facts.has_float16_weights


def test_says_how_an_integer_file_is_quantised():
    facts = read_model(INT8)
    assert facts.operators == {"FULLY_CONNECTED": 5}
    (tensor,) = facts.inputs
    assert (tensor.dtype, tensor.values) == ("INT8", 6)
    assert (len(tensor.scales), len(tensor.zero_points)) == (1, 1)
    assert "scale" in str(tensor)
    assert facts.peak_bytes == 6 + 12


@pytest.mark.parametrize(
    ("name", "operators", "peak"),
    [
        ("ad01_int8", {"FULLY_CONNECTED": 4}, 640 + 128),
        (
            "pretrainedResnet_quant",
            {"ADD": 2, "AVERAGE_POOL_2D": 2, "CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1,
             "SOFTMAX": 2},
            3 * 16 * 32 * 32,
        ),
    ],
)  # fmt: skip
def test_reads_models_of_others(shared_data, name, operators, peak):
    facts = read_model((shared_data / "models" / f"{name}.tflite").read_bytes())
    assert facts.operators == operators
    assert facts.peak_bytes == peak
    assert facts.memory_bytes == 2 * facts.file_bytes + 3 * peak + 2**20


def test_float16_weights_count_for_two_more_files():
    data = _changed(lambda m: _field(m.Subgraphs(0).Tensors(2), 6), tflite.TensorType.FLOAT16, "<b")
    facts = read_model(bytes(data))
    assert facts.has_float16_weights
    assert facts.memory_bytes == 4 * len(data) + 3 * facts.peak_bytes + 2**20


def test_names_are_those_of_the_schema():
    operators = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
    assert list(NAMES) == [operators[code] for code in range(len(operators))]
    assert operator_name(len(NAMES)) == f"OPERATOR_{len(NAMES)}"
    types = {v: k for k, v in vars(tflite.TensorType).items() if isinstance(v, int)}
    assert list(TYPES) == [types[code] for code in range(len(types))]


def test_operators_of_a_version_between_two_known_are_those_of_the_older():
    old, new = known_operators("ai-edge-litert", "2.3.0"), known_operators("tflite-runtime", "2.14")
    assert old
    assert new
    assert known_operators("ai-edge-litert", "2.99.1") == old
    assert known_operators("tflite-runtime", "2.13.0") is None
    assert known_operators("somebody-else", "9.0") is None


def _refused(data):
    with pytest.raises(BrokenFileError) as caught:
        read_model(bytes(data), "net.tflite")
    assert caught.value.code == "bad-model"
    assert caught.value.sentence.startswith("net.tflite: ")
    return caught.value.sentence


def test_every_truncation_is_refused():
    for data in (FLOAT32, INT8):
        for length in range(len(data) - 1):
            _refused(data[:length])


@pytest.mark.parametrize("data", [FLOAT32, INT8], ids=["float32", "int8"])
def test_no_single_changed_byte_gives_another_error(data):
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= (0x01, 0x80, 0xFF)[at % 3]
        try:
            read_model(changed)
        except BrokenFileError:
            continue


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 200))
def test_noise_in_the_header_gives_one_error_or_a_reading(noise, at):
    data = INT8[:at] + noise + INT8[at + len(noise) :]
    try:
        assert read_model(data).file_bytes == len(data)
    except InvalidInputError as error:
        assert error.code == "bad-model"  # noqa: PT017 - both outcomes are right


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_bytes_that_are_no_model_are_refused(data):
    _refused(data)
    _refused(data[:4] + b"TFL3" + data[4:])


def _changed(find, value, kind="<i"):
    """The int8 file with one number changed, at the offset that `find(model)` gives."""
    data = bytearray(INT8)
    struct.pack_into(kind, data, find(tflite.Model.GetRootAs(INT8)), value)
    return data


def _vector(table, slot, item=0, size=4):
    start = table._tab.Vector(table._tab.Offset(slot))
    return start + item * size


def _field(table, slot):
    return table._tab.Pos + table._tab.Offset(slot)


@pytest.mark.parametrize(
    ("find", "value", "words"),
    [
        (lambda m: _vector(m.Subgraphs(0), 6), 99, "graph input: tensor 99, expected 0 to 9"),
        (lambda m: _vector(m.Subgraphs(0), 8), -2, "graph output: tensor -2"),
        (lambda m: _vector(m.Subgraphs(0), 8), 0x7FFFFFFF, "graph output: tensor"),
        (lambda m: _vector(m.Subgraphs(0).Operators(1), 6), 10, "operator 1 (FULLY_CONNECTED)"),
        (lambda m: _vector(m.Subgraphs(0).Operators(0), 6), 9, "before it is written"),
        (lambda m: _vector(m.Subgraphs(0).Operators(0), 8), 1, "writes into constant tensor 1"),
        (lambda m: _vector(m.Subgraphs(0).Tensors(1), 4, 1), 4096, "its shape needs"),
        (lambda m: _vector(m.Subgraphs(0).Tensors(1), 4), -7, "shape"),
        (lambda m: _vector(m.Subgraphs(0).Tensors(0), 4, 1), 2**31 - 1, None),
        (lambda m: _field(m.Subgraphs(0).Tensors(1), 8), 77, "buffer 77"),
        (lambda m: _field(m.OperatorCodes(0), 10), 4000, "operator code 4000"),
    ],
)
def test_numbers_that_runtimes_would_follow_are_checked(find, value, words):
    if words is None:  # large, but a shape like any other: memory decides
        assert read_model(bytes(_changed(find, value))).memory_bytes > 2**31
        return
    assert words in _refused(_changed(find, value))


def test_a_scale_that_is_no_number_is_refused():
    def find(model):
        quantisation = model.Subgraphs(0).Tensors(0).Quantization()
        return _vector(quantisation, 8)

    assert "not finite" in _refused(_changed(find, float("nan"), "<f"))


def test_a_small_file_cannot_make_us_read_for_ever():
    """A vector that names the same table over and over costs as much as that many tables."""
    data = bytearray(INT8)
    graph = tflite.Model.GetRootAs(INT8).Subgraphs(0)
    steps = graph._tab.Pos + graph._tab.Offset(10)
    start = graph._tab.Vector(graph._tab.Offset(10))
    count = (len(data) - start) // 4
    struct.pack_into("<I", data, start - 4, count)
    assert steps < start
    _refused(data)
    source = Source(bytes(64), "net.tflite")
    with pytest.raises(BrokenFileError, match="to read"):
        source.spend(MAX_ITEMS + 1)
