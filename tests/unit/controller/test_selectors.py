"""Saved selectors over the API, and rollouts that start only for whom they were planned."""

from __future__ import annotations

import pytest

from shoal.protocol.manifest import Requires


@pytest.fixture
def call(api, operator):
    """`call("PUT", "/selectors/x", {…})`: status and document."""

    def run(method, path, body=None, **params):
        answer = api.request(
            method, f"/api/v1{path}", json=body, params=params or None, headers=operator
        )
        return answer.status_code, answer.json()

    return run


@pytest.fixture
def fleet(enrolled):
    for name, site in (("gw-1", "jfk"), ("gw-2", "jfk"), ("gw-3", "lga")):
        enrolled(name, site=site)


def test_a_saved_selector_follows_the_fleet_and_a_static_group_does_not(call, fleet, enrolled):
    assert call("PUT", "/selectors/here", {"selector": "site:jfk"})[1]["matched"] == 2
    body = {"selector": "site:jfk", "static": True, "note": "first"}
    assert call("PUT", "/selectors/then", body)[1]["matched"] == 2
    enrolled("gw-4", site="jfk")
    _, document = call("GET", "/selectors")
    assert [(one["name"], one["static"], one["matched"]) for one in document["items"]] == [
        ("here", False, 3), ("then", True, 2),
    ]  # fmt: skip
    _, page = call("GET", "/devices", q="group:here !group:then")
    assert [one["device"] for one in page["items"]] == ["gw-4"]


def test_a_selector_that_others_speak_of_is_not_removed(call, fleet):
    call("PUT", "/selectors/a", {"selector": "site:jfk"})
    call("PUT", "/selectors/b", {"selector": "not group:a"})
    status, problem = call("DELETE", "/selectors/a")
    assert (status, problem["code"]) == (409, "in-use")
    assert call("DELETE", "/selectors/b")[0] == 200
    assert call("DELETE", "/selectors/a")[0] == 200
    assert call("GET", "/selectors/a")[0] == 404


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("x", {"selector": "site"}, "character 1"),
        ("x", {"selector": "group:none"}, "no selector is saved under that name"),
        ("loop", {"selector": "group:inner"}, "contains itself"),
        ("X", {"selector": "*"}, "expected a name of a-z"),
        ("x", {"selector": "*", "surprise": 1}, "surprise"),
        ("x", {}, "selector"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_a_sentence(call, fleet, name, body, words):
    call("PUT", "/selectors/loop", {"selector": "site:jfk"})
    call("PUT", "/selectors/inner", {"selector": "group:loop"})
    status, problem = call("PUT", f"/selectors/{name}", body)
    assert status == 422
    assert words in problem["detail"]


def test_a_preview_counts_and_says_why(call, fleet, services, make_pump, release):
    package = make_pump(requires=Requires(arch=["riscv64"]))
    release(package)
    status, found = call(
        "POST", "/selectors/preview", {"selector": "site:jfk", "model": "pump", "version": "1.0"}
    )
    assert status == 200
    assert (found["matched"], found["of"], found["sites"]) == (2, 3, {"jfk": 2})
    assert found["offline"][0] == {
        "device": "gw-1", "sentence": "gw-1: enrolled, but never heard of",
    }  # fmt: skip
    assert [one["device"] for one in found["incompatible"]] == ["gw-1", "gw-2"]


def test_a_draft_starts_only_for_the_devices_it_was_planned_for(
    call, fleet, enrolled, services, make_pump, release
):
    release(make_pump())
    body = {"model": "pump", "version": "1.0", "selector": "site:jfk", "start": False}
    status, problem = call("POST", "/rollouts", body | {"expect": 3})
    assert (status, problem["code"]) == (409, "other-devices")
    assert "3 devices were expected, 2 match" in problem["detail"]

    assert call("POST", "/rollouts", body | {"expect": 2})[0] == 201
    enrolled("gw-9", site="jfk")
    status, problem = call("POST", "/rollouts/r-1/start")
    assert (status, problem["code"]) == (409, "other-devices")
    assert "1 came: gw-9; expect 3 to plan it anew" in problem["detail"]
    assert call("POST", "/rollouts/r-1/start", expect=2)[0] == 409

    status, document = call("POST", "/rollouts/r-1/start", expect=3)
    assert (status, document["state"]) == (200, "running")
    _, found = call("GET", "/rollouts/r-1/executions")
    assert {one["device"] for one in found["items"]} == {"gw-1", "gw-2", "gw-9"}


def test_a_draft_that_nobody_matches_any_more_does_not_start(
    call, fleet, services, make_pump, release
):
    release(make_pump())
    body = {"model": "pump", "version": "1.0", "selector": "device:gw-3", "start": False}
    call("POST", "/rollouts", body)
    call("POST", "/devices/gw-3/revoke")
    status, problem = call("POST", "/rollouts/r-1/start")
    assert (status, problem["code"]) == (422, "no-devices")


def test_a_wrong_search_is_refused_with_its_place(call, fleet):
    status, problem = call("GET", "/devices", q="gw state:well")
    assert status == 422
    assert "character 10: expected a state" in problem["detail"]


def test_waves_of_a_plan_may_choose_their_devices_and_leave_a_control(
    call, enrolled, services, make_pump, release
):
    for number in range(10):
        enrolled(f"gw-{number}", site="jfk" if number < 3 else "lga")
    release(make_pump())
    body = {
        "model": "pump", "version": "1.0", "start": False, "control_share": 0.2,
        "waves": [
            {"name": "lab", "selector": "site:jfk", "devices": 1},
            {"name": "grow", "base": 1, "factor": 3},
        ],
        "max_under_way": 4, "start_at": "2026-11-30T22:00:00+01:00",
        "maintenance_windows": ["sat,sun 22:00-04:00"], "time_zone": "Europe/Berlin",
    }  # fmt: skip
    status, found = call("POST", "/rollouts", body)
    assert status == 201, found
    assert [(one["name"], one["size"]) for one in found["waves"]] == [
        ("lab", 1), ("grow 2", 1), ("grow 3", 3), ("grow 4", 3), ("control", 2),
    ]  # fmt: skip
    assert found["schedule"] == (
        "offers after 2026-11-30T22:00+01:00; offers only sat,sun 22:00-04:00 (Europe/Berlin); "
        "at most 4 under way at once; 20% held back as control"
    )
    _, executions = call("GET", "/rollouts/r-1/executions")
    lab = [one["device"] for one in executions["items"] if one["wave"] == 1]
    assert lab[0] in ("gw-0", "gw-1", "gw-2")
    assert call("POST", "/rollouts/r-1/start")[1]["state"] == "scheduled"
