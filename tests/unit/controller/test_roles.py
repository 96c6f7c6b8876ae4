"""Every route of API and pages against what each role may do, as people are told it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

import controller.api
import controller.web
from controller.people.roles import GRANTED_ROLES, NEEDS, ROLES, at_least, needed_for
from controller.setup import add_api_token

VALUES = {
    "device": "gw-1", "kind": "windows", "model": "pump", "version": "1.0", "rollout": "r-1",
    "verb": "pause", "scope": "device", "subject": "gw-1",
    "digest": "0" * 64, "sequence": "1", "number": "1", "command": "c-1",
    "user": "ann", "token": "k-1", "what": "disable", "link": "x", "wanted": "gw-1",
    "fingerprint": "0" * 64,
    "name": "app.css", "alias": "champion", "change": "1",
}  # fmt: skip
OPEN = {
    "GET /health", "POST /enrolments", "POST /renewals",
    "GET /static/{digest}/{name:path}",
    "GET /repository/files/{digest}", "GET /repository/metadata/{name}",
}  # fmt: skip
ANYBODY = {"GET /sign-in", "POST /sign-in", "POST /sign-in/out", "GET /sign-in/{link}",
           "POST /sign-in/{link}",
           "GET /sign-in/provider", "GET /sign-in/provider/done"}  # fmt: skip
VIEWING_CHANGES = {
    "POST /rollouts/preview",
    "POST /selectors/preview",
    "POST /sign-in-links",
    "POST /settings/password",
}
OPERATORS_READ = {
    "GET /audit", "GET /audit/export", "GET /enrolment-tokens", "GET /admissions",
    "GET /rollouts/new",
    "GET /devices/{device}/commands", "GET /devices/{device}/commands/{command}",
}  # fmt: skip
RELEASERS = {
    "POST /releases",
    "POST /trust",
    "POST /rollouts/{rollout}/approve",
    "POST /rollouts/{rollout}/reject",
    "PUT /models/{model}/aliases/{alias}",
    "DELETE /models/{model}/aliases/{alias}",
    "POST /alias-changes/{change}/approve",
    "POST /alias-changes/{change}/reject",
    "POST /alias-changes/{change}/withdraw",
}
PEOPLE = ("/users", "/api-tokens", "/settings/users", "/settings/tokens")


def _routes():
    """(method, path, route, whether it is of the API) of every router."""
    found = {}
    for package in (controller.api, controller.web):
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            for one in vars(importlib.import_module(info.name)).values():
                if isinstance(one, APIRouter):
                    for route in one.routes:
                        assert isinstance(route, APIRoute)
                        for method in route.methods:
                            api = package is controller.api
                            found[(method, route.path, api)] = route
    return [(method, path, route, api) for (method, path, api), route in found.items()]


ROUTES = _routes()


def _expected(method, path):
    name = f"{method} {path}"
    if name in OPEN:
        return None
    if name in ANYBODY:
        return "none"
    if path.startswith(PEOPLE):
        return "admin"
    if name in RELEASERS:
        return "releaser"
    reads = method == "GET" and name not in OPERATORS_READ
    return "viewer" if reads or name in VIEWING_CHANGES else "operator"


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [one[:3] for one in ROUTES],
    ids=[f"{one[0]} {one[1]} {'api' if one[3] else 'page'}" for one in ROUTES],
)
def test_the_table_says_of_every_route_what_people_are_told(method, path, route):
    assert needed_for(route.endpoint) == _expected(method, path)


def test_the_table_names_no_route_that_is_not_there():
    names = {
        (route.endpoint.__module__.removeprefix("controller."), route.endpoint.__name__)
        for _, _, route, _ in ROUTES
    }
    assert {(module, name) for module, rows in NEEDS.items() for name in rows} == names


def test_every_operation_of_the_openapi_is_a_route_that_was_walked(app):
    walked = {(method, path) for method, path, _, api in ROUTES if api}
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            assert (method.upper(), path.removeprefix("/api/v1")) in walked


def _below(path, api):
    at_the_top = path.startswith(("/repository", "/metrics"))
    return f"/api/v1{path}" if api and not at_the_top else path


def test_every_role_gets_in_where_it_may_and_nowhere_else(services, api):
    tokens = {"": {}}
    for role in GRANTED_ROLES:
        add_api_token(services.settings, f"the-{role}", role, f"secret of {role}")
        tokens[role] = {"authorization": f"Bearer secret of {role}"}
    for method, path, route, is_api in ROUTES:
        needed = needed_for(route.endpoint)
        if path == "/stream":
            continue  # never ends; the table's row is checked above
        url = _below(path, is_api).replace("{name:path}", "{name}").format(**VALUES)
        for role, headers in tokens.items():
            answer = api.request(method, url, headers=headers)
            refused = (
                answer.status_code == 401
                or answer.headers.get("location", "").startswith("/sign-in")
                or (answer.status_code == 403 and "this needs the role" in answer.text)
            )
            by_table = needed is not None and not at_least(role or "none", needed)
            if f"{method} {path}" in ANYBODY:
                continue  # their own refusals are tested with the sessions
            assert refused == by_table, f"{role} {method} {url}: {answer.status_code}"


def test_a_route_without_a_row_is_refused_to_the_highest_role(app, services, api, operator):
    @app.get("/api/v1/forgotten", include_in_schema=False)
    def forgotten():
        return {}

    answer = api.get("/api/v1/forgotten", headers=operator)
    assert (answer.status_code, answer.json()["code"]) == (403, "no-role")


def test_roles_are_in_one_order():
    assert ROLES == ("none", "viewer", "operator", "releaser", "admin")
