"""The chain of the audit log, as anybody who has the rows can walk it."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from shoal.audit import GENESIS, hash_of, parse_rows, walk
from shoal.cli.app import app
from shoal.errors import InvalidInputError


def _chain(length):
    rows, previous = [], GENESIS
    for number in range(1, length + 1):
        row = {
            "id": number,
            "ts_ms": number,
            "actor": "ann",
            "action": "test",
            "subject": f"ü {number}",
            "data": {"ratio": 0.1 * number},
            "previous": previous,
        }
        previous = hash_of(row)
        rows.append(row | {"hash": previous})
    return rows


def test_an_honest_chain_is_whole_and_says_its_newest_hash():
    rows = _chain(3)
    verdict = walk(json.loads(json.dumps(rows)))
    assert (verdict.whole, verdict.rows, verdict.newest) == (True, 3, rows[-1]["hash"])
    assert walk([]).whole


@given(
    st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.sampled_from(["actor", "action", "subject", "data", "ts_ms", "hash", "previous"]),
)
def test_any_change_of_any_field_breaks_the_chain_at_that_row(size_and_place, field):
    size, place = size_and_place
    rows = copy.deepcopy(_chain(size))
    rows[place][field] = {"forged": True} if field == "data" else 7 if field == "ts_ms" else "x"
    if rows == _chain(size):
        return
    assert walk(rows).broken_id == rows[place]["id"]


def test_newest_rows_that_are_gone_are_missed_by_who_noted_their_hash():
    rows = _chain(5)
    assert walk(rows[:3]).whole
    assert not walk(rows[:3], noted=rows[4]["hash"]).whole
    assert walk(rows, noted=rows[2]["hash"]).whole


def test_a_part_of_a_log_is_walked_from_where_it_begins():
    rows = _chain(5)
    assert not walk(rows[2:]).whole
    assert walk(rows[2:], start=None).whole


@pytest.mark.parametrize("odd", [None, 7, [7], [{}], {"items": 1}, [{"id": "1"}]])
def test_what_is_no_export_is_refused(odd):
    with pytest.raises(InvalidInputError, match="expected a list of rows"):
        parse_rows(odd)


def test_the_command_verifies_an_export_and_says_where_it_breaks(tmp_path):
    file = tmp_path / "audit.json"
    rows = _chain(4)
    file.write_text(json.dumps(rows[::-1]))
    good = CliRunner().invoke(app, ["audit", "verify", str(file)])
    assert good.exit_code == 0
    assert rows[-1]["hash"] in good.output
    rows[1]["actor"] = "eve"
    file.write_text(json.dumps(rows))
    bad = CliRunner().invoke(app, ["audit", "verify", str(file)])
    assert bad.exit_code == 1
    assert "broken at row 2" in bad.output
