"""Waves as an operator types them."""

from __future__ import annotations

import pytest

from shoal.errors import InvalidInputError
from shoal.waves import parse_waves


def test_counts_and_shares_become_waves_with_names() -> None:
    assert parse_waves(["2", "25%", "100 %"]) == [
        {"name": "canary", "devices": 2},
        {"name": "25 %", "share": 0.25},
        {"name": "100 %", "share": 1.0},
    ]


@pytest.mark.parametrize("text", ["", "0", "-1", "0%", "101%", "1e3", "٣", "two", "25%%", "2.5"])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a count"):
        parse_waves([text])
