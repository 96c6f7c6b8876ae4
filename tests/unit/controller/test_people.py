"""Users and API tokens: who can be made, what they may do, and how that ends."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from controller import schema
from controller.database import reading, writing
from controller.errors import ConflictError, TooManyError, UnauthenticatedError
from controller.people import attempts, passwords, sessions, tokens, users
from controller.people.attempts import ACCOUNT, ADDRESS
from shoal.errors import InvalidInputError

PASSWORD = "a horse, a battery"
HOME = "192.0.2.1"


@pytest.fixture
def engine(services):
    return services.engine


@pytest.fixture
def ann(engine, services):
    """An admin with a password."""
    users.add(engine, "shoal-controller", services.now_ms(), "ann", "admin", PASSWORD)
    return users.check_password(engine, services.now_ms(), "ann", PASSWORD, HOME)


def _audit(engine):
    with reading(engine) as connection:
        rows = connection.execute(select(schema.audit).order_by(schema.audit.c.id)).mappings()
        return [dict(row) for row in rows]


# passwords


def test_a_password_is_stored_as_argon2id_and_matches_however_it_was_typed():
    stored = passwords.make_hash("café crème, deux", "ann")
    assert stored.startswith("$argon2id$")
    assert passwords.verify(stored, "café crème, deux")
    assert not passwords.verify(stored, "cafe creme, deux")
    assert not passwords.verify(None, "café crème, deux")


@pytest.mark.parametrize("weak", ["", "short", "xyzw" * 90, "a" * 16, "ann ann ann ann"])
def test_a_weak_password_is_refused_in_words(weak):
    with pytest.raises(InvalidInputError, match="password: expected"):
        passwords.make_hash(weak, "ann")


# signing in


def test_unknown_names_disabled_accounts_and_wrong_passwords_look_the_same(engine, ann):
    users.add(engine, "ann", 1, "bob", "viewer", PASSWORD)
    users.change(engine, "ann", 2, "bob", disabled=True)
    said = set()
    for name, password in (("ann", "wrong"), ("bob", PASSWORD), ("eve", PASSWORD), ("", "")):
        with pytest.raises(UnauthenticatedError) as caught:
            users.check_password(engine, 3, name, password, HOME)
        said.add((caught.value.sentence, caught.value.code))
    assert len(said) == 1


def test_a_refused_name_that_is_no_users_is_not_written_down(engine, ann):
    with pytest.raises(UnauthenticatedError):
        users.check_password(engine, 3, "my-secret-typed-here", "x", HOME)
    with pytest.raises(UnauthenticatedError):
        users.check_password(engine, 3, "ann", "wrong", HOME)
    refused = [one["subject"] for one in _audit(engine) if one["action"] == "sign-in.refuse"]
    assert refused == ["an unknown name", "user ann"]


def test_an_account_takes_so_many_attempts_and_then_not_even_the_right_password(engine, ann):
    for _ in range(ACCOUNT.burst):
        with pytest.raises(UnauthenticatedError):
            users.check_password(engine, 1000, "ann", "wrong", HOME)
    with pytest.raises(TooManyError, match="try again in 60 s"):
        users.check_password(engine, 1000, "ann", PASSWORD, "198.51.100.9")
    later = 1000 + int(ACCOUNT.refill_seconds * 1000)
    assert users.check_password(engine, later, "ann", PASSWORD, HOME).name == "ann"


def test_an_address_takes_so_many_attempts_whatever_the_names(engine, services):
    with writing(engine) as connection:
        for number in range(ADDRESS.burst):
            attempts.take(connection, f"user{number}", "2001:db8::1", 1000)
        with pytest.raises(TooManyError):
            attempts.take(connection, "another", "2001:db8::ffff", 1000)
        attempts.take(connection, "another", HOME, 1000)


def test_a_clock_that_goes_back_opens_no_bucket():
    assert ACCOUNT.level(5.0, -10_000_000) == 5.0
    assert ACCOUNT.level(5.0, 60_000) == 4.0


# sessions


def _session(engine, person, now_ms):
    with writing(engine) as connection:
        return sessions.start(connection, person, now_ms)


def _found(engine, secret, now_ms):
    with reading(engine) as connection:
        return sessions.find(connection, secret, now_ms)


@pytest.mark.parametrize("change", [{"password": "another long one"}, {"disabled": True}])
def test_a_new_password_or_a_disabled_account_ends_every_session(engine, ann, change):
    first, second = _session(engine, ann, 1000), _session(engine, ann, 1000)
    assert _found(engine, first, 2000).role == "admin"
    users.change(engine, "root", 3000, "ann", **change)
    assert _found(engine, first, 4000) is None
    assert _found(engine, second, 4000) is None


def test_a_session_has_the_role_that_its_user_has_now(engine, ann):
    secret = _session(engine, ann, 1000)
    users.change(engine, "root", 1500, "ann", role="viewer")
    assert _found(engine, secret, 2000).role == "viewer"


def test_a_session_ends_after_twelve_hours(engine, ann):
    secret = _session(engine, ann, 1000)
    assert _found(engine, secret, 1000 + sessions.SESSION_SECONDS * 1000 - 1) is not None
    assert _found(engine, secret, 1000 + sessions.SESSION_SECONDS * 1000) is None


# tokens


def test_a_token_acts_until_it_expires_or_is_revoked_and_says_when_it_was_used(engine, ann):
    made = tokens.create(engine, 1000, ann, "ci", "releaser", 60)
    person = tokens.use(engine, made["token"], 2000)
    assert (person.name, person.role, person.owner) == ("ci", "releaser", "ann")
    assert tokens.use(engine, made["token"], 61_000) is None
    again = tokens.create(engine, 1000, ann, "ci-2", "viewer", None)
    tokens.revoke(engine, 3000, "ann", again["token_id"])
    assert tokens.use(engine, again["token"], 4000) is None
    with pytest.raises(ConflictError):
        tokens.revoke(engine, 5000, "ann", again["token_id"])
    with reading(engine) as connection:
        listed = {one["name"]: one for one in tokens.list_tokens(connection)}
    assert listed["ci"]["last_used_ms"] == 2000
    assert "token_hash" not in listed["ci"]


def test_a_token_is_never_more_than_its_owner_and_ends_with_the_account(engine, ann):
    secret = tokens.create(engine, 1000, ann, "ci", "releaser", None)["token"]
    users.change(engine, "root", 1500, "ann", role="viewer")
    assert tokens.use(engine, secret, 2000).role == "viewer"
    users.change(engine, "root", 1500, "ann", disabled=True)
    assert tokens.use(engine, secret, 3000) is None


def test_no_secret_is_in_the_database_or_the_audit_log(engine, services, ann):
    made = tokens.create(engine, 1000, ann, "ci", "releaser", None)
    session = _session(engine, ann, 1000)
    engine.dispose()
    for path in services.settings.data_dir.glob("shoal.sqlite*"):
        content = path.read_bytes()
        for secret in (made["token"], PASSWORD, session):
            assert secret.encode() not in content
    assert len(made["token"]) >= 43 + len(tokens.PREFIX)


@pytest.mark.parametrize("name", ["", "Ann", "a b", "-x", "a" * 64, "anonymous", "operator", "ann"])
def test_nobody_gets_a_name_that_is_odd_reserved_or_anothers(engine, ann, name):
    with pytest.raises((InvalidInputError, ConflictError)):
        users.add(engine, "ann", 1, name, "viewer", PASSWORD)
    with pytest.raises((InvalidInputError, ConflictError)):
        tokens.create(engine, 1, ann, name, "viewer", None)


def test_tokens_from_before_there_were_roles_keep_working_as_admins(engine):
    from controller.people.directory import secret_hash

    old = {secret_hash("old-1"): "ann", secret_hash("old-2"): "ann"}
    with writing(engine) as connection:
        connection.execute(insert(schema.settings).values(key="api-tokens", value=old))
    tokens.adopt_old(engine, 1000)
    tokens.adopt_old(engine, 1000)
    found = [tokens.use(engine, secret, 2000) for secret in ("old-1", "old-2")]
    assert {one.role for one in found} == {"admin"}
    assert len({one.name for one in found}) == 2


# through the API


def test_every_change_of_people_is_audited_with_who_made_it(api, operator, engine):
    def send(method, path, body):
        return api.request(method, f"/api/v1/{path}", json=body, headers=operator)

    user = {"name": "ann", "role": "viewer", "password": PASSWORD}
    assert send("POST", "users", user).status_code == 201
    for change in ({"role": "operator"}, {"password": "another long one"}, {"disabled": True},
                   {"disabled": False}):  # fmt: skip
        assert send("PATCH", "users/ann", change).status_code == 200
    token = send("POST", "api-tokens", {"name": "ci", "role": "viewer"}).json()
    assert send("POST", f"api-tokens/{token['token_id']}/revoke", {}).status_code == 200
    rows = [(one["actor"], one["action"]) for one in _audit(engine)][-7:]
    assert rows == [
        ("operator", "user.add"), ("operator", "user.role"), ("operator", "user.password"),
        ("operator", "user.disable"), ("operator", "user.enable"),
        ("operator", "api-token.create"), ("operator", "api-token.revoke"),
    ]  # fmt: skip
    assert PASSWORD not in str(_audit(engine))
    assert "password" not in api.get("/api/v1/users", headers=operator).text.replace(
        "password_ms", ""
    )


@pytest.mark.parametrize("body", [{}, {"role": "king"}, {"password": "short"}])
def test_a_bad_change_of_a_user_is_refused_and_changes_nothing(api, operator, engine, ann, body):
    before = _audit(engine)
    assert api.request("PATCH", "/api/v1/users/ann", json=body, headers=operator).status_code == 422
    missing = api.request("PATCH", "/api/v1/users/no", json={"role": "viewer"}, headers=operator)
    assert missing.status_code == 404
    assert _audit(engine) == before


def test_a_session_in_the_database_cannot_be_lengthened_by_its_cookie(engine, ann):
    secret = _session(engine, ann, 1000)
    with writing(engine) as connection:
        connection.execute(update(schema.browser_sessions).values(expires_ms=1))
    assert _found(engine, secret, 2000) is None
