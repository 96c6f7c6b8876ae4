"""From rows by column to packed numbers, and from bytes to lines."""

from __future__ import annotations

import array
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.address import split_address
from agent.sources import Tally
from agent.sources.lines import CsvLines, LineSplitter
from agent.sources.rows import ColumnPath, Packer, parse_row
from shoal.errors import InvalidInputError


def _pack(rows, features=("t",), **options):
    tally = Tally()
    packer = Packer(tally, **options)
    packer.select(list(features))
    samples = packer.pack(rows)
    return array.array("f", samples.values).tolist(), samples.times_ms, tally.take()


@pytest.mark.parametrize("raw", ["", "NA", "NaN", "nan", "null", None, " "])
def test_what_says_nothing_is_missing(raw):
    (value,), _, dropped = _pack([{"t": raw}])
    assert math.isnan(value)
    assert dropped == {}


@pytest.mark.parametrize("raw", ["warm", [1], {}, "1,5", "0x1"])
def test_what_is_no_number_is_unparsable(raw):
    values, times, dropped = _pack([{"t": raw}, {"t": "2"}, {}, None, {"t": True}])
    assert values == [2.0, 1.0]
    assert len(times) == 2
    assert dropped == {"unparsable": 3}


def test_a_path_reads_nested_json():
    row = parse_row(b'{"data": {"sensors": [{"t": 1.5}, {"t": 2.5}]}, "at": 7}')
    found = _pack([row], columns={"t": "$.data.sensors[1].t"}, time_column="$.at", time_unit="s")
    assert found == ([2.5], [7000], {})


@pytest.mark.parametrize(
    "row", [{}, {"data": 3}, {"data": "text"}, {"data": {"sensors": []}}, {"data": None}]
)
def test_a_path_that_leads_nowhere_is_unparsable(row):
    assert _pack([row], columns={"t": "$.data.sensors[0]"})[2] == {"unparsable": 1}


@pytest.mark.parametrize("text", ["$x", "$.", "$.a[", "$.a[x]", "$.a..b", "$[-1]"])
def test_a_path_that_cannot_be_read_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"expected \.name or"):
        ColumnPath(text)


def test_a_kind_of_trouble_is_told_once_and_every_row_counted():
    told = []
    tally = Tally(lambda code, sentence: told.append((code, sentence)))
    packer = Packer(tally)
    packer.select(["t"])
    packer.pack([None, {"t": "warm"}, {"x": 1}])
    assert tally.take() == {"unparsable": 3}
    assert told == [("unparsable", "row 0: not a row: None")]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"3", b"\xff", b"", b"{}" * 2, b"[" * 100_000])
def test_a_line_that_is_no_object_is_no_row(line):
    assert parse_row(line) is None


def test_python_s_nan_is_understood():
    assert math.isnan(parse_row(b'{"t": NaN}')["t"])


@given(
    st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=20),
    st.integers(1, 40),
)
def test_lines_are_the_same_however_the_stream_is_cut(lines, size):
    splitter, found = LineSplitter(20), []
    stream = b"".join(line + b"\n" for line in lines)
    for start in range(0, len(stream), size):
        found += splitter.feed(stream[start : start + size])
    found += splitter.end()
    assert found == [line.strip() for line in lines if line.strip() and len(line) <= 20]
    assert splitter.too_long == sum(len(line) > 20 for line in lines)


def test_an_endless_line_costs_no_memory_and_is_counted_once():
    splitter = LineSplitter(100)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
        assert len(splitter._rest) <= 100
    assert splitter.feed(b"end\nnext\n") == [b"next"]
    assert splitter.too_long == 1


def test_csv_lines_take_their_names_from_the_first_or_from_the_configuration():
    named = CsvLines([], ",")
    assert named([b"a, b", b"1,2"]) == [{"a": "1", "b": "2"}]
    assert named([b"3", b"4,5", b"\xff,1"]) == [None, {"a": "4", "b": "5"}, None]
    assert CsvLines(["x"], ";")([b'"1"']) == [{"x": "1"}]


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:x", "host:70000"])
def test_an_address_needs_host_and_port(text):
    with pytest.raises(InvalidInputError, match="expected host:port"):
        split_address(text)


def test_an_address_may_be_ipv6():
    assert split_address("[::1]:5000") == ("::1", 5000)
