"""Baselines: the three kinds of field, their bins, and what a damaged file is told."""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shoal.baseline import (
    MAX_BASELINE_BYTES,
    MAX_EDGES,
    FieldBaseline,
    decode_baseline,
    encode_baseline,
)
from shoal.errors import InvalidInputError
from shoal.protocol import SCHEMA
from shoal.statistics import QUANTILE_BINS, Accumulator, make_baseline


def _field(values, bins=QUANTILE_BINS) -> FieldBaseline:
    column = np.asarray(values, np.float32)[:, None]
    return make_baseline(column, column, ["x"], ["y"], bins).features[0]


def _document(**changes):
    field = {
        "name": "x",
        "kind": "continuous",
        "edges": [0.0, 1.0],
        "counts": [0, 4, 0],
        "count": 4,
        **changes,
    }
    return {"rows": 4, "features": [field], "outputs": []}


def test_a_continuous_field_has_equally_filled_bins():
    field = _field(np.random.default_rng(1).normal(0, 1, 1000))
    assert field.kind == "continuous"
    assert field.counts == [0, *[100] * QUANTILE_BINS, 0]


def test_the_number_of_bins_can_be_chosen():
    field = _field(np.arange(1000), bins=20)
    assert field.counts == [0, *[50] * 20, 0]


def test_ties_take_edges_away_and_never_a_value():
    field = _field([0.0] * 900 + list(range(1, 101)))
    assert field.kind == "continuous"
    assert len(field.edges) < QUANTILE_BINS + 1
    assert sum(field.counts) == 1000
    assert field.counts[0] == field.counts[-1] == 0


def test_a_discrete_field_has_one_bin_a_value():
    field = _field([0, 90, 180, 270] * 10 + [90] * 5)
    assert field.kind == "discrete"
    assert field.edges == [-45, 45, 135, 225, 315]
    assert field.counts == [0, 10, 15, 10, 10, 0]


@pytest.mark.parametrize("values", [range(12), [1, 2] * 4, list(range(13)) * 50])
def test_rare_or_many_values_are_not_discrete(values):
    assert _field(list(values)).kind == "continuous"


@pytest.mark.parametrize("value", [0.0, 21.5, -1e9])
def test_a_constant_field_puts_its_value_in_the_middle(value):
    field = _field([value] * 30)
    assert field.kind == "constant"
    assert field.counts == [0, 30, 0]
    assert field.min == field.max == field.mean == np.float32(value)
    assert field.std == 0.0


def test_a_field_without_a_single_value_is_constant_and_has_no_edges():
    field = _field([math.nan] * 5)
    assert (field.kind, field.edges, field.counts) == ("constant", [], [0])
    assert (field.count, field.missing) == (0, 5)


def test_missing_and_infinite_values_stay_out_of_bins_and_moments():
    field = _field([1.0, 2.0, 3.0, math.nan, math.inf, -math.inf])
    assert (field.count, field.missing) == (3, 1)
    assert (field.mean, field.m2, field.min, field.max) == (2.0, 2.0, 1.0, 3.0)
    assert field.std == 1.0


@given(
    arrays(np.float32, st.integers(0, 200), elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(2, 30),
)
def test_every_baseline_survives_its_file_and_holds_its_own_rows(values, bins):
    column = values[:, None]
    baseline = make_baseline(column, column, ["x"], ["y"], bins)
    assert decode_baseline(encode_baseline(baseline)) == baseline
    field = baseline.features[0]
    assert field.counts[0] == field.counts[-1] == 0
    counter = Accumulator(["x"], [field.edges], [(None, None)])
    counter.update(column)
    (counted,) = counter.take()
    assert counted.bins == (field.counts if field.edges else [])


@given(arrays(np.float32, 50, elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_edges_rise_for_any_float32(values):
    edges = _field(values).edges
    assert all(a < b for a, b in pairwise(edges))
    assert all(math.isfinite(edge) for edge in edges)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (_document(counts=[4]), "x: 1 bins for 2 edges, expected one more"),
        (_document(edges=[1.0, 1.0]), "x: edges do not rise"),
        (_document(edges=[2.0, 1.0]), "x: edges do not rise"),
        (_document(count=5), "x: bins hold 4 of 5 values"),
        ({**_document(), "schema": SCHEMA + 1}, f"schema {SCHEMA + 1} is too new"),
        (_document(kind="fuzzy"), "fuzzy"),
        (_document(name=""), "name"),
        (_document(counts=[0, -4, 8]), "counts"),
        (_document(edges=[float(i) for i in range(MAX_EDGES + 1)]), "edges"),
        ({"rows": 4, "features": []}, "outputs"),
        ([], "object"),
    ],
)
def test_a_wrong_baseline_is_refused_naming_what_is_wrong(document, sentence):
    with pytest.raises(InvalidInputError, match="baseline: .*" + sentence) as caught:
        decode_baseline(msgspec.json.encode(document))
    assert caught.value.code == "invalid-baseline"


def test_all_mistakes_are_reported_together():
    document = _document(edges=[1.0, 1.0], counts=[4], count=5)
    with pytest.raises(InvalidInputError) as caught:
        decode_baseline(msgspec.json.encode(document))
    for part in ("expected one more", "do not rise", "hold 4 of 5"):
        assert part in caught.value.sentence


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'{"rows": NaN}'])
def test_garbage_is_refused_with_a_code(data):
    with pytest.raises(InvalidInputError) as caught:
        decode_baseline(data)
    assert caught.value.code == "invalid-baseline"


def test_a_baseline_over_the_limit_is_not_even_parsed():
    with pytest.raises(InvalidInputError, match=str(MAX_BASELINE_BYTES)):
        decode_baseline(b" " * (MAX_BASELINE_BYTES + 1))
