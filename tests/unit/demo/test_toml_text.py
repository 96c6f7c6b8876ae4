"""What is written as TOML reads back the same."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from local_fleet.toml_text import to_toml

# TOML has no control characters in basic strings beyond JSON's escapes, and no lone surrogates.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=8)
SCALARS = st.booleans() | st.integers(-(2**53), 2**53) | TEXT
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = SCALARS | FLOATS | st.lists(SCALARS, max_size=3)
TABLES = st.recursive(
    st.dictionaries(TEXT, LEAVES, max_size=3),
    lambda inner: st.dictionaries(TEXT, LEAVES | inner | st.lists(inner, max_size=3), max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, TABLES, max_size=3))
def test_round_trips(document: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(document)) == document


def test_writes_sections_and_lists_of_tables_as_people_do() -> None:
    text = to_toml(
        {
            "device": {"id": "gw-1"},
            "models": {
                "weather": {
                    "source": {"kind": "csv", "inject": [{"feature": "temp", "kind": "stuck"}]},
                    "actions": [{"kind": "mqtt"}],
                }
            },
        }
    )
    assert text == (
        '[device]\nid = "gw-1"\n\n'
        '[models.weather.source]\nkind = "csv"\n\n'
        '[[models.weather.source.inject]]\nfeature = "temp"\nkind = "stuck"\n\n'
        '[[models.weather.actions]]\nkind = "mqtt"\n'
    )
