"""Rehearsals: the real engine on simulated fleets ends as each scenario says, alike every time."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from controller.simulation.rehearsal import run
from controller.simulation.scenario import SCENARIOS, find_scenario
from shoal.cli.app import app
from shoal.errors import InvalidInputError

PLAN = {
    "waves": [{"name": "canary", "devices": 5}, {"name": "all", "share": 1.0, "approval": True}],
    "soak_seconds": 900,
    "offer_seconds": 600,
}


def _run(scenario, seed=1, devices=40, **options):
    return run(PLAN | options, devices=devices, scenario=scenario, seed=seed, window_seconds=300.0)


def test_a_good_release_reaches_everybody_who_is_there():
    found = _run("good")
    assert found["outcome"] == "succeeded"
    assert found["states"]["succeeded"] >= 37
    assert [one["state"] for one in found["rollout"]["waves"]] == ["passed", "passed"]
    assert found["timeline"][0]["state"] == "running"


@pytest.mark.parametrize("scenario", ["bad-release", "crashing-release", "wrong-answers"])
def test_a_harmful_release_is_taken_back_from_the_canaries(scenario):
    found = _run(scenario)
    assert found["outcome"] == "rolled_back"
    assert [one["state"] for one in found["rollout"]["waves"]] == ["failed", "pending"]
    assert "succeeded" not in found["states"]


def test_a_broken_site_does_not_stop_a_good_release():
    assert _run("bad-site", devices=60)["outcome"] == "succeeded"


def test_failed_downloads_pass_with_more_attempts_and_not_without():
    plan = {"waves": [{"name": "canary", "devices": 20}, {"name": "all", "share": 1.0}]}
    assert _run("flaky-downloads", **plan)["outcome"] == "rolled_back"
    assert _run("flaky-downloads", max_attempts=8, **plan)["outcome"] == "succeeded"


def test_the_same_seed_gives_the_same_story_and_another_one_another():
    def story(seed):
        found = _run("offline+slow-links", seed, devices=12, soak_seconds=300, offer_seconds=300)
        return json.dumps(found)

    assert story(7) == story(7)
    assert story(7) != story(8)


def test_an_unknown_scenario_is_refused_with_those_there_are():
    with pytest.raises(InvalidInputError, match="expected one of good, slow-links"):
        find_scenario("worse")
    both = find_scenario("offline+bad-site")
    assert (both.offline_share, both.bad_site) == (SCENARIOS["offline"].offline_share, True)


def test_the_command_tells_the_story_and_its_exit_code_the_outcome(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN))
    common = ["simulate", "--plan", str(plan), "--devices", "30", "--seed", "3"]
    result = CliRunner().invoke(app, [*common, "--scenario", "good", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["outcome"] == "succeeded"
    result = CliRunner().invoke(app, [*common, "--scenario", "crashing-release"])
    assert result.exit_code == 4, result.output
    assert "rolled back after" in result.output
    assert "the worker crashed during probation" in result.output
    plan.write_text("[]")
    result = CliRunner().invoke(app, common)
    assert "expected an object, got list" in str(result.exception or result.output)
