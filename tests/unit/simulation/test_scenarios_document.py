"""The document names the scenarios there are."""

from __future__ import annotations

import re

from controller.simulation.scenario import SCENARIOS


def test_document_has_every_scenario(repository_root):
    text = (repository_root / "docs" / "explanation" / "rollouts.md").read_text()
    table = text.partition("| scenario | what happens |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([^`]+)` ", table, re.M) == list(SCENARIOS)
