"""A second person agrees before a rollout starts, and before a wave that asks for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from controller import schema
from controller.config import RolloutSettings
from controller.database import writing
from controller.rollouts.engine import Engine

PLAN = {
    "model": "pump",
    "version": "1.0",
    "waves": [{"name": "canary", "devices": 1}, {"name": "all", "share": 1.0, "approval": True}],
}


@pytest.fixture
def ask(api, add_people, enrolled, make_pump, release):
    """`ask("bob", "approve", reason=…)`: what a person asks of r-1, and the answer."""
    people = {"olga": "operator", "ann": "releaser", "bob": "releaser", "bob's script": "releaser"}
    add_people(people, "bob")
    for device in ("gw-1", "gw-2"):
        enrolled(device)
    release(make_pump())

    def run(person, verb, **query):
        headers = {"authorization": f"Bearer {person}"}
        if verb == "create":
            answer = api.post("/api/v1/rollouts", headers=headers, json=PLAN | query)
        else:
            answer = api.post(f"/api/v1/rollouts/r-1/{verb}", headers=headers, params=query)
        return answer.status_code, answer.json()

    return run


def test_a_rollout_starts_when_another_person_has_approved_it(ask, services):
    assert ask("ann", "create", approvals=1)[1]["state"] == "awaiting_approval"
    assert not Engine(services).tick()

    status, problem = ask("ann", "approve")
    assert (status, problem["code"]) == (403, "same-person")
    assert ask("olga", "approve")[0] == 403

    status, found = ask("bob", "approve", reason="looked at the preview")
    assert (status, found["state"], found["reason"]) == (200, "running", "")
    assert [
        (one["wave"], one["person"], one["approved"], one["reason"]) for one in found["approvals"]
    ] == [(0, "bob", True, "looked at the preview")]


def test_a_person_is_the_same_with_any_of_their_tokens(ask):
    ask("bob's script", "create", approvals=1)
    for name in ("bob", "bob's script"):
        assert ask(name, "approve")[1]["code"] == "same-person"
    assert ask("ann", "approve")[1]["state"] == "running"


def test_the_controller_may_ask_for_more_approvals_than_a_rollout(ask, services):
    services.settings = _asking(services.settings, 2)
    found = ask("olga", "create")[1]
    assert found["reason"] == "waits for approval by 2 other people"
    found = ask("ann", "approve")[1]
    assert found["reason"] == "waits for approval by another person"
    assert ask("bob", "approve")[1]["state"] == "running"


def test_a_draft_asks_for_what_the_controller_asks_for_when_it_starts(ask, services):
    ask("olga", "create", start=False)
    services.settings = _asking(services.settings, 1)
    assert ask("olga", "start")[1]["state"] == "awaiting_approval"


def test_a_rejection_needs_a_reason_and_ends_the_rollout(ask):
    ask("olga", "create", approvals=1)
    assert ask("ann", "reject")[0] == 422
    assert ask("ann", "reject", reason="  ")[0] == 422
    found = ask("ann", "reject", reason="not before the weekend")[1]
    assert (found["state"], found["reason"]) == (
        "aborted", "rejected by ann: not before the weekend",
    )  # fmt: skip


def test_approving_is_refused_when_other_devices_match_by_then(ask, services, enrolled):
    ask("olga", "create", approvals=1)
    enrolled("gw-3")
    status, problem = ask("ann", "approve")
    assert (status, problem["code"]) == (409, "other-devices")
    assert ask("ann", "reject", reason="old plan")[1]["state"] == "aborted"


def test_a_wave_waits_for_approval_and_a_rejection_pauses(ask, services):
    ask("olga", "create")
    assert ask("ann", "approve")[1]["code"] == "wrong-state"
    assert ask("olga", "approve")[0] == 403
    with writing(services.engine) as connection:
        canary = schema.waves.c.number == 1
        connection.execute(update(schema.waves).where(canary).values(state="passed", promoted=True))
    Engine(services).tick()

    found = ask("ann", "reject", reason="too hot today")[1]
    assert (found["state"], found["reason"]) == ("paused", "wave 2 rejected by ann: too hot today")
    ask("olga", "resume")
    Engine(services).tick()
    status, found = ask("bob", "approve")
    assert (status, found["state"], found["awaits_approval_of"]) == (200, "running", None)
    Engine(services).tick()
    assert ask("olga", "pause")[1]["waves"][1]["state"] == "releasing"


def test_an_approval_is_not_a_command_like_others(ask, api):
    ask("olga", "create", approvals=1)
    headers = {"authorization": "Bearer ann"}
    answer = api.post("/api/v1/rollouts/r-1/%61pprove?reason=x", headers=headers)
    assert answer.json()["state"] == "running"  # the path is the same: its own route answered
    answer = api.post("/api/v1/rollouts/r-1/Approve", headers=headers)
    assert answer.status_code == 404


def test_a_rollout_with_a_start_is_scheduled_until_then_and_can_be_cancelled(ask, services):
    found = ask("olga", "create", start_at="2099-01-01T00:00:00+00:00")[1]
    assert (found["state"], found["reason"]) == ("scheduled", "starts at 2099-01-01T00:00+00:00")
    Engine(services).tick()
    assert ask("olga", "abort")[1]["state"] == "aborted"


def test_a_scheduled_rollout_waits_for_one_that_is_under_way(ask, services):
    ask("olga", "create")
    _, second = ask("olga", "create", start_at="2020-01-01T00:00:00+00:00")
    engine = Engine(services)
    engine.tick()
    with services.engine.connect() as connection:
        query = schema.rollouts.select().where(schema.rollouts.c.rollout == second["rollout"])
        row = connection.execute(query).one()
    assert (row.state, row.reason) == ("scheduled", "waits for r-1, which is under way")
    ask("olga", "abort")
    engine.tick()
    with services.engine.connect() as connection:
        assert connection.execute(query).one().state == "running"


def _asking(settings, count):
    return replace(settings, rollouts=RolloutSettings(approvals=count))
