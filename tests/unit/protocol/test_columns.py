"""Statistics as columns: nothing is lost on the wire, and what does not fit is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.protocol.columns import FieldStatistics, from_columns, to_columns
from shoal.protocol.messages import InvalidMessageError, Statistics, decode, encode
from shoal.protocol.topics import Channel

counts = st.integers(0, 2**53)
numbers = st.floats(allow_nan=False, allow_infinity=False)
fields = st.builds(
    FieldStatistics,
    name=st.text(max_size=20),
    count=counts,
    missing=counts,
    nonfinite=counts,
    out_of_range=counts,
    mean=numbers,
    m2=numbers,
    min=st.none() | numbers,
    max=st.none() | numbers,
    bins=st.lists(counts, max_size=4),
)
OF: dict[str, Any] = {
    "device": "gw-1", "site": "jfk", "boot_id": "b1", "seq": 7, "ts_ms": 1, "model": "pump",
    "version": "1.0.0", "release_sequence": 1, "start_ms": 0, "end_ms": 1,
}  # fmt: skip


@given(st.lists(fields, max_size=4), st.lists(fields, max_size=2), counts)
def test_statistics_survive_the_wire(
    features: list[FieldStatistics], outputs: list[FieldStatistics], rows: int
) -> None:
    message = Statistics(**OF, manifest="m", rows=rows, features=features, outputs=outputs)
    assert decode(Channel.STATISTICS, encode(message)) == message


def test_what_follows_from_the_rows_is_not_sent() -> None:
    plain = FieldStatistics(name="t", count=8, missing=2, mean=1.0, m2=2.0, min=0.0, max=2.0)
    columns = to_columns([plain], rows=10)
    assert msgspec.to_builtins(columns) == {
        "names": ["t"], "missing": [2], "mean": [1.0], "m2": [2.0], "min": [0.0], "max": [2.0],
    }  # fmt: skip
    assert from_columns(columns, rows=10) == [plain]


def test_the_manifest_is_sent_only_where_no_baseline_names_the_release() -> None:
    message = Statistics(**OF, manifest="m", baseline="b", rows=0)
    assert decode(Channel.STATISTICS, encode(message)).manifest == ""
    message.baseline = ""
    assert decode(Channel.STATISTICS, encode(message)).manifest == "m"


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"names": ["a", "b"], "mean": [1.0]}, "features.mean: 1 values for 2 names"),
        ({"names": ["a"], "bins": [[1], [2]]}, "features.bins: 2 values for 1 names"),
        ({"names": [], "m2": [1.0]}, "features.m2: 1 values for 0 names"),
        ({"names": ["a"], "missing": [11]}, "features.count: more values missing than the 10 rows"),
        ({"names": ["a"], "count": [-1]}, "features.count"),
        ({"names": ["a"], "bins": [["x"]]}, "features.bins"),
        ("none", "features"),
    ],
)
def test_columns_that_do_not_fit_are_refused_by_name(columns: Any, sentence: str) -> None:
    payload = msgspec.json.encode({**OF, "schema": 2, "rows": 10, "features": columns})
    with pytest.raises(InvalidMessageError, match=sentence) as caught:
        decode(Channel.STATISTICS, payload)
    assert caught.value.code == "invalid-message"
