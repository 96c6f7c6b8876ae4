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


def test_selectors_and_growing_waves_are_waves() -> None:
    assert parse_waves(["site:ulm tag:lab", "1x4", "2x1.5/500"]) == [
        {"name": "site:ulm tag:lab", "selector": "site:ulm tag:lab"},
        {"name": "wave", "base": 1, "factor": 4.0},
        {"name": "wave", "base": 2, "factor": 1.5, "cap": 500},
    ]


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "0%", "101%", "1e3", "٣", "two", "25%%", "2.5", "0x2", "1x0", "1x4/0"]
)
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a count"):
        parse_waves([text])
