"""Every route of the API: who may call it, and that bad input is the caller's fault, in words."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from controller import schema
from controller.api.json_body import MAX_BODY_BYTES
from controller.database import writing

PROBLEM = {"type", "title", "status", "detail", "code"}
OPEN = {"/api/v1/health", "/api/v1/enrolments", "/api/v1/renewals",
        "/repository/files/{digest}", "/repository/metadata/{name}"}  # fmt: skip
UNSAFE = "/api/v1/stream"  # never ends; tested with a real server
VALUES = {
    "alias": "champion", "change": "1",
    "device": "gw-1", "kind": "windows", "model": "pump", "version": "1.0", "rollout": "r-1",
    "scope": "device", "subject": "gw-1",
    "verb": "pause", "digest": "0" * 64, "sequence": "1", "number": "1", "command": "c-1",
    "name": "pilot", "wanted": "gw-1",
    "user": "ann", "token": "k-1",
}  # fmt: skip

LOOKS = {"/api/v1/rollouts/preview", "/api/v1/selectors/preview"}


def _operations(app):
    return [
        (method.upper(), path, operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
        if path != UNSAFE
    ]


def _problem(answer):
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert set(document) == PROBLEM
    assert document["status"] == answer.status_code
    assert document["code"]
    assert document["detail"]
    return document


@pytest.fixture
def with_pump(api, operator, enrolled, make_pump, release):
    """One device, one release and one draft rollout."""
    enrolled("gw-1")
    release(make_pump())
    draft = {"model": "pump", "version": "1.0", "start": False}
    assert api.post("/api/v1/rollouts", json=draft, headers=operator).status_code == 201
    return api


def test_every_route_but_the_open_ones_needs_a_token(api):
    for method, path, _ in _operations(api.app):
        answer = api.request(method, path.format(**VALUES))
        if path in OPEN:
            assert answer.status_code != 401, path
        else:
            assert answer.status_code == 401, f"{method} {path}"
            assert _problem(answer)["code"] == "unauthenticated"


def test_changes_need_the_operator(services, api):
    services.settings = _anonymous(services.settings, "viewer")
    for method, path, _ in _operations(api.app):
        if method != "GET" and path not in OPEN | LOOKS:
            answer = api.request(method, path.format(**VALUES), json={})
            assert answer.status_code == 401, path


def _anonymous(found, role):
    return replace(found, web=replace(found.web, anonymous=role))


@pytest.mark.parametrize(
    "path",
    ["devices/none", "devices/none/windows", "devices/none/drift?model=pump",
     "devices/gw-1/secrets",
     "models/none", "models/pump/releases/9", "alerts/7",
     "rollouts/none", "rollouts/none/executions",
     "nothing"],
)  # fmt: skip
def test_what_is_not_there_is_a_404_with_a_sentence(with_pump, operator, path):
    answer = with_pump.get(f"/api/v1/{path}", headers=operator)
    assert answer.status_code == 404
    _problem(answer)


def test_a_wrong_method_is_a_405(api, operator):
    assert _problem(api.request("DELETE", "/api/v1/fleet", headers=operator))["status"] == 405


def test_every_reading_route_answers(with_pump, operator):
    for method, path, _ in _operations(with_pump.app):
        if method != "GET" or path.startswith("/repository"):
            continue
        query = "?model=pump" if path.endswith("/drift") else ""
        answer = with_pump.get(path.format(**VALUES) + query, headers=operator)
        nothing_yet = path.endswith(
            ("}/drift", "/alerts/{number}", "/{command}", "/{name}", "/{change}")
        )
        expected = 404 if nothing_yet else 200
        assert answer.status_code == expected, f"{path}: {answer.text}"


def test_pages_of_devices_follow_their_cursor(api, operator, enrolled):
    for number in range(5):
        enrolled(f"gw-{number}", site="jfk" if number % 2 else "lga")
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.get("/api/v1/devices", params=query, headers=operator).json()
        seen += [one["device"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"gw-{number}" for number in range(5)]
    fleet = api.get("/api/v1/fleet", headers=operator).json()
    assert (fleet["total"], fleet["counters"]["unknown"]) == (5, 5)
    one = api.get("/api/v1/devices", params={"site": "jfk", "q": "-3"}, headers=operator).json()
    assert [row["device"] for row in one["items"]] == ["gw-3"]


def test_a_draft_is_started_paused_and_aborted(with_pump, operator):
    def command(verb):
        return with_pump.post(f"/api/v1/rollouts/r-1/{verb}", headers=operator)

    assert command("pause").status_code == 409
    assert [command(verb).json()["state"] for verb in ("start", "pause", "resume", "abort")] == [
        "running", "paused", "running", "aborted",
    ]  # fmt: skip
    assert _problem(command("resume"))["code"] == "wrong-state"
    assert _problem(command("explode"))["status"] == 404


def test_one_rollout_of_a_model_at_a_time(with_pump, operator):
    with_pump.post("/api/v1/rollouts/r-1/start", headers=operator)
    again = {"model": "pump", "version": "1.0"}
    answer = with_pump.post("/api/v1/rollouts", json=again, headers=operator)
    assert _problem(answer)["code"] == "rollout-active"


def test_an_old_rollout_is_not_rolled_back_over_a_newer_one(with_pump, operator):
    for verb in ("start", "abort"):
        with_pump.post(f"/api/v1/rollouts/r-1/{verb}", headers=operator)
    again = {"model": "pump", "version": "1.0"}
    assert (
        with_pump.post("/api/v1/rollouts", json=again, headers=operator).json()["rollout"] == "r-2"
    )
    with_pump.post("/api/v1/rollouts/r-2/abort", headers=operator)
    answer = with_pump.post("/api/v1/rollouts/r-1/rollback", headers=operator)
    assert _problem(answer)["code"] == "not-the-newest"
    assert with_pump.post("/api/v1/rollouts/r-2/rollback", headers=operator).status_code == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"selector": "site:nowhere"}, "no-devices"),
        ({"selector": "colour:red"}, "invalid-selector"),
        ({"version": "9"}, "not-found"),
        ({"waves": []}, "invalid-rollout"),
        ({"gates": {"max_failed_ratio": math.nan}}, "invalid-request"),
        ({"gates": {"max_prediction_shift": math.inf}}, "invalid-request"),
        ({"soak_seconds": math.nan}, "invalid-request"),
        ({"waves": [{"name": "\ud800", "devices": 1}]}, "invalid-request"),
        ({"gates": {"max_latency_ratio": 0}}, "invalid-rollout"),
        ({"gates": {"min_rows": 0}}, "invalid-rollout"),
        ({"gates": {"max_failde_ratio": 0.5}}, "invalid-rollout"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused_by_preview_and_create(
    with_pump, operator, change, code
):
    body = json.dumps({"model": "pump", "version": "1.0", **change})
    headers = operator | {"content-type": "application/json"}
    for path in ("/api/v1/rollouts/preview", "/api/v1/rollouts"):
        answer = with_pump.post(path, content=body, headers=headers)
        assert _problem(answer)["code"] == code


# Anything at all

ODD = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["gw-1", "pump", "r-1", "1.0", "*", "0", "-1", str(2**63), str(2**70), "1e999",
                     "NaN", "\x00", "%", "..", "a" * 3000, "\u202e", "null", "'; DROP TABLE x"]),
)  # fmt: skip
VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), ODD,
    st.just("\ud800"), st.lists(ODD, max_size=2), st.dictionaries(ODD, ODD, max_size=2),
)  # fmt: skip
FIELDS = ["model", "version", "selector", "waves", "soak_seconds", "gates", "start", "device",
          "site", "labels", "expires_seconds", "token_id", "public_key", "proof", "schema",
          "max_failed_ratio", "probation_seconds", "kind", "lines", "capture", "since_ms",
          "window_seconds", "log_level"]  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=50),
    VALUE.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(FIELDS), VALUE, max_size=4).map(
        lambda fields: json.dumps(
            {"model": "pump", "version": "1.0", "start": False, **fields}
        ).encode()
    ),
    st.just(b"[" * 20_000),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_bad_input_is_never_our_fault(with_pump, operator, data):
    method, path, operation = data.draw(st.sampled_from(_operations(with_pump.app)))
    names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
    url = path
    for name, good in VALUES.items():
        value = data.draw(st.one_of(st.just(good), ODD)) if f"{{{name}}}" in path else ""
        url = url.replace(f"{{{name}}}", _quoted(value))
    query = data.draw(st.dictionaries(st.sampled_from(names), ODD)) if names else {}
    body = data.draw(BODIES) if method in ("POST", "PATCH") else b""
    headers = operator | {"content-type": "application/json"}
    answer = with_pump.request(method, url, params=query, content=body, headers=headers)
    assert answer.status_code < 500, f"{method} {url} {query} {body!r}: {answer.text}"
    if answer.status_code >= 400:
        _problem(answer)


def _quoted(text):
    return quote(text, safe="", errors="replace")


@pytest.mark.parametrize("text", ['{"x": NaN}', '{"x": 1e999}', '{"labels": {"a": "\\ud800"}}'])
def test_what_could_not_be_answered_again_is_not_taken(api, operator, text):
    headers = operator | {"content-type": "application/json"}
    for path in ("enrolment-tokens", "rollouts", "rollouts/preview"):
        answer = api.post(f"/api/v1/{path}", content=text, headers=headers)
        assert _problem(answer)["code"] == "invalid-request"


def test_a_body_without_end_is_cut_off_before_anybody_asks_who_sends_it(api):
    answer = api.post("/api/v1/rollouts", content=b" " * (MAX_BODY_BYTES + 1))
    assert _problem(answer)["status"] == 413


def test_a_defect_is_a_problem_document_that_tells_nothing(services, api, operator):
    services.engine.dispose()
    with writing(services.engine) as connection:
        connection.execute(update(schema.api_tokens).values(role="not a role"))
    answer = api.get("/api/v1/fleet", headers=operator)
    assert _problem(answer) | {"detail": ""} == {
        "type": "about:blank", "title": "internal-error", "status": 500, "detail": "",
        "code": "internal-error",
    }  # fmt: skip
    assert "not a role" not in answer.text
