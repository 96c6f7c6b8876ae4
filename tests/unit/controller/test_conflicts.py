"""Rollouts of one model: which may run, who takes no part, who comes late, and taking all back."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from controller import schema
from controller.database import reading, writing
from controller.errors import ConflictError
from controller.rollouts.drawing import preview
from controller.rollouts.engine import Engine
from controller.rollouts.late import follow_up
from controller.rollouts.opting import opt_in, opt_out
from controller.rollouts.proposals import propose
from controller.rollouts.service import command, create, get_rollout, list_executions, recall
from controller.rollouts.values import parse_specification
from controller.saved_selectors import moment

DEVICES = ("gw-0", "gw-1", "gw-2")


@pytest.fixture
def fleet(enrolled, make_pump, release, services):
    """Three devices and two releases."""
    for number, device in enumerate(DEVICES):
        enrolled(device, site="ulm" if number else "jfk")
    for number in (1, 2):
        release(make_pump(f"{number}.0", number))
    _hear(services, *DEVICES)


@pytest.fixture
def start(services, fleet):
    def run(version="1.0", **options):
        body = {"model": "pump", "version": version, "soak_seconds": 0, **options}
        return create(services, parse_specification(body), "ann")

    return run


def _hear(services, *devices):
    now_ms = services.now_ms()
    values = {"online": True, "status": "ok", "last_seen_ms": now_ms}
    with writing(services.engine) as connection:
        here = schema.devices.c.device.in_(devices)
        connection.execute(update(schema.devices).where(here).values(**values))


def _found(services, rollout):
    with reading(services.engine) as connection:
        return get_rollout(connection, rollout)


def _states(services, rollout):
    with reading(services.engine) as connection:
        return {one["device"]: one["state"] for one in list_executions(connection, rollout)}


def test_a_second_rollout_is_refused_unless_it_says_what_to_do(start):
    start()
    with pytest.raises(ConflictError, match="one rollout of a model at a time"):
        start("2.0")


def test_rollouts_that_queue_begin_by_priority_when_the_model_is_free(services, start):
    first = start()["rollout"]
    low = start("2.0", on_conflict="queue", priority=1)
    high = start("2.0", on_conflict="queue", priority=7)
    assert (low["state"], low["reason"]) == ("scheduled", f"waits for {first}, which is under way")
    engine = Engine(services)
    engine.tick()
    command(services, first, "abort", "ann")
    engine.tick()
    assert _found(services, high["rollout"])["state"] == "running"
    waiting = _found(services, low["rollout"])
    assert waiting["reason"] == f"waits for {high['rollout']}, which is under way"


def test_a_higher_priority_supersedes_and_takes_back_what_was_not_begun(services, start):
    first = start(priority=3)["rollout"]
    Engine(services).tick()
    offered = next(d for d, state in _states(services, first).items() if state == "offered")
    with pytest.raises(ConflictError, match="has priority 3, expected less than 3"):
        start("2.0", on_conflict="supersede", priority=3)

    second = start("2.0", on_conflict="supersede", priority=4)

    old = _found(services, first)
    assert (second["state"], old["state"], old["reason"]) == (
        "running", "aborted", f"superseded by {second['rollout']}",
    )  # fmt: skip
    assert set(_states(services, first).values()) == {"superseded"}
    with reading(services.engine) as connection:
        rows = connection.execute(select(schema.assignments)).all()
    assert [one for one in rows if one.device == offered] == []


def test_who_is_opted_out_is_left_out_with_the_reason_until_taken_in_again(services, start):
    opt_out(services, "device", "gw-0", "calibration", "ann")
    opt_out(services, "site", "ulm", "", "bob")
    body = {"model": "pump", "version": "1.0"}
    opt_in(services, "device", "gw-0", "ann")
    with reading(services.engine) as connection:
        found = preview(connection, parse_specification(body), moment(services))
    assert [one["sentence"] for one in found["incompatible"]] == [
        f"{device}: site ulm opted out of rollouts by bob" for device in ("gw-1", "gw-2")
    ]
    assert found["matched"] == 1


def test_what_a_device_waits_for_is_cancelled_when_it_is_opted_out(services, start):
    rollout = start()["rollout"]
    Engine(services).tick()
    waiting = [device for device, state in _states(services, rollout).items() if state == "queued"]
    opt_out(services, "device", waiting[0], "calibration", "ann")
    assert _states(services, rollout)[waiting[0]] == "cancelled"


def test_recall_takes_the_newest_release_back_and_cancels_what_waits(services, start):
    first = start()["rollout"]
    later = start("2.0", on_conflict="queue")["rollout"]
    Engine(services).tick()
    assert recall(services, "pump", "ann")["rollout"] == first
    assert _found(services, first)["state"] == "rolling_back"
    assert _found(services, later)["state"] == "aborted"


def test_late_devices_of_a_continuous_rollout_get_a_rollout_of_their_own(services, start, enrolled):
    first = start(continuous=True, late_at_once=1)["rollout"]
    with writing(services.engine) as connection:
        connection.execute(update(schema.rollouts).values(state="succeeded"))
        connection.execute(update(schema.executions).values(state="succeeded"))
        gave_up = schema.executions.c.device == "gw-2"
        connection.execute(update(schema.executions).where(gave_up).values(state="rejected"))
        for device in ("gw-0", "gw-1"):
            connection.execute(
                schema.device_models.insert().values(
                    device=device, model="pump", active_version="1.0", active_sequence=1
                )
            )
    assert follow_up(services) == []
    for device in ("gw-7", "gw-8", "gw-9"):
        enrolled(device)
    _hear(services, "gw-7", "gw-8")  # the third was never heard of

    (name,) = follow_up(services)

    found = _found(services, name)
    assert (found["state"], found["created_by"]) == ("running", f"{first} (continuous)")
    assert set(_states(services, name)) == {"gw-7", "gw-8"}
    assert found["options"]["max_under_way"] == 1
    assert follow_up(services) == []  # that one is under way
    Engine(services).tick()
    assert sorted(_states(services, name).values()) == ["offered", "queued"]


def test_an_alert_proposes_a_draft_with_its_sentence_and_starts_nothing(services, fleet):
    with writing(services.engine) as connection:
        connection.execute(schema.alerts.insert().values(
            id=17, scope="site", subject="ulm", model="pump", family="inputs", field="t",
            kind="mean", sentence="ulm: t rose by 2 σ", evidence={}, started_ms=1, opened_ms=1,
        ))  # fmt: skip
    found = propose(services, 17, "2.0", "ann")
    assert (found["state"], found["selector"], found["reason"]) == (
        "draft", "site:ulm", "alert 17: ulm: t rose by 2 σ",
    )  # fmt: skip
    Engine(services).tick()
    assert set(_states(services, found["rollout"]).values()) == {"queued"}
