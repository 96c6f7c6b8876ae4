"""Who did what, provably; and who may do what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import delete, select, update

from controller import audit, schema
from controller.database import reading, writing
from controller.people.roles import ANONYMOUS_ROLES
from controller.setup import add_api_token
from shoal.audit import hash_of


@pytest.fixture
def chain(services):
    """Five rows; returns where the chain breaks."""
    with writing(services.engine) as connection:
        for number in range(5):
            audit.record(connection, number, "ann", "test", f"thing {number}", {"ä": number})

    def broken():
        with reading(services.engine) as connection:
            return audit.find_break(connection)

    return broken


@pytest.fixture
def ids(services, chain):
    with reading(services.engine) as connection:
        return list(connection.scalars(select(schema.audit.c.id).order_by(schema.audit.c.id)))


def _change(services, row_id, **values):
    with writing(services.engine) as connection:
        here = schema.audit.c.id == row_id
        connection.execute(update(schema.audit).where(here).values(**values))


def test_an_honest_chain_holds(chain):
    assert chain() is None


@pytest.mark.parametrize(
    "values",
    [{"actor": "bob"}, {"action": "nothing"}, {"subject": "x"}, {"data": {}}, {"ts_ms": 99},
     {"hash": "0" * 64}, {"previous": "0" * 64}],
)  # fmt: skip
def test_a_changed_row_is_found(services, chain, ids, values):
    _change(services, ids[-3], **values)
    assert chain() in ids[-3:-1]


def test_a_changed_row_with_its_hash_made_anew_is_found_at_the_next(services, chain, ids):
    with reading(services.engine) as connection:
        query = select(schema.audit).where(schema.audit.c.id == ids[-3])
        row = dict(connection.execute(query).mappings().one()) | {"actor": "bob"}
    _change(services, ids[-3], actor="bob", hash=hash_of(row))
    assert chain() == ids[-2]


@pytest.mark.parametrize("at", [0, 2, -2])
def test_a_removed_row_is_found(services, chain, ids, at):
    with writing(services.engine) as connection:
        connection.execute(delete(schema.audit).where(schema.audit.c.id == ids[at]))
    assert chain() is not None


def test_the_api_says_where_the_chain_breaks(services, api, operator, chain, ids):
    assert api.get("/api/v1/audit", headers=operator).json()["first_broken_id"] is None
    _change(services, ids[1], actor="bob")
    assert api.get("/api/v1/audit", headers=operator).json()["first_broken_id"] == ids[1]


def test_what_failed_leaves_no_row(services):
    before = _rows(services)
    with pytest.raises(TypeError), writing(services.engine) as connection:
        _record_and_fail(connection)
    assert _rows(services) == before


def _record_and_fail(connection):
    audit.record(connection, 1, "ann", "test", "x")
    audit.record(connection, 1, "ann", "test", "y", {"no JSON": object()})


def _rows(services):
    with reading(services.engine) as connection:
        return len(audit.list_rows(connection, 1000))


# Tokens and roles

READ, CHANGE = "/api/v1/fleet", "/api/v1/rollouts/r-1/pause"


@pytest.fixture
def anonymous(services):
    def become(role):
        services.settings = replace(
            services.settings, web=replace(services.settings.web, anonymous=role)
        )

    return become


@pytest.mark.parametrize(
    ("role", "reads", "changes"), [("none", 401, 401), ("viewer", 200, 401), ("operator", 200, 404)]
)
def test_what_people_without_a_token_may_do_is_configured(api, anonymous, role, reads, changes):
    anonymous(role)
    assert (api.get(READ).status_code, api.post(CHANGE).status_code) == (reads, changes)
    assert role in ANONYMOUS_ROLES


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer wrong", "Basic b3BlcmF0b3I6eA==", "operator", "Bearer \xff",
     "Bearer " + "x" * 5000],
)  # fmt: skip
def test_a_wrong_token_is_refused_even_where_strangers_may_read(api, anonymous, header):
    anonymous("viewer")
    answer = api.get(READ, headers={"authorization": header.encode("latin-1")})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_token_acts_under_its_name(services, api, make_pump, package_file):
    add_api_token(services.settings, "ci", "releaser", "secret-of-ci")
    headers = {"authorization": "Bearer secret-of-ci"}
    body = package_file(make_pump()).read_bytes()
    assert api.post("/api/v1/releases", content=body, headers=headers).status_code == 201
    rows = api.get("/api/v1/audit", headers=headers).json()["items"]
    assert (rows[0]["actor"], rows[0]["action"]) == ("ci", "release.upload")


def test_no_token_is_stored_in_words(services):
    token = services.settings.token_file.read_text().strip()
    services.engine.dispose()
    for path in services.settings.data_dir.glob("shoal.sqlite*"):
        assert token.encode() not in path.read_bytes()
    assert services.settings.token_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"sec-fetch-site": "same-origin"}, 404),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://controller"}, 404),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example", "sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_a_change_from_another_sites_page_is_refused(api, anonymous, headers, status):
    anonymous("operator")
    assert api.post(CHANGE, headers=headers).status_code == status
