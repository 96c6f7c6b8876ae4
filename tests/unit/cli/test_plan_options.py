"""What is given on the command line becomes a specification; create and preview take the same."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from shoal.cli import rollout
from shoal.cli.app import app


@pytest.fixture
def sent(monkeypatch):
    """What the controller would have been sent."""
    found = []

    class Client:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def create_rollout(self, specification):
            found.append(specification)
            return {"rollout": "r-1", "state": "draft", "waves": []}

        def preview_rollout(self, specification):
            found.append(specification)
            return {"model": "m", "waves": []}

    monkeypatch.setattr(rollout, "connect", lambda url: Client())
    return found


def test_create_and_preview_send_the_same_plan(sent):
    plan = [
        "m", "2", "--selector", "site:ulm", "--wave", "1", "--wave", "100%+approval",
        "--shadow-rows", "500", "--shadow-seconds", "60", "--max-per-site", "3",
        "--window", "sat 22:00-04:00", "--approvals", "1", "--max-attempts", "3",
    ]  # fmt: skip
    for verb, more in (("create", ["--no-start"]), ("preview", [])):
        result = CliRunner().invoke(app, ["rollout", verb, *plan, *more, "--json"])
        assert result.exit_code == 0, result.output
        json.loads(result.output)
    assert sent[1] == {
        "model": "m", "version": "2", "selector": "site:ulm",
        "waves": [
            {"name": "canary", "devices": 1}, {"name": "100 %", "share": 1.0, "approval": True},
        ],
        "shadow_rows": 500, "shadow_seconds": 60.0, "max_under_way_per_site": 3,
        "maintenance_windows": ["sat 22:00-04:00"], "approvals": 1, "max_attempts": 3,
    }  # fmt: skip
    assert sent[0] == sent[1] | {"start": False, "expect": None}
