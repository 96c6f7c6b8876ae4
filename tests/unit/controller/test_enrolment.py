"""Enrolment: one token, one device, once; and a stranger learns nothing."""

from __future__ import annotations

import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest
from sqlalchemy import select, update

from controller import schema
from controller.database import reading, writing
from controller.enrolment import (
    MAX_EXPIRY_SECONDS,
    accounts,
    create_token,
    decode_request,
    enrol,
    list_tokens,
    revoke,
)
from controller.errors import ConflictError, ForbiddenError, UnavailableError
from shoal.errors import InvalidInputError
from shoal.protocol.desired import EnrolmentAnswer
from shoal.protocol.envelope import ENROLMENT_TYPE, MAX_ENVELOPE_BYTES, decode_envelope
from shoal.signing import KeyVerifier


@pytest.fixture
def token(services, rooted):
    def make(device=None, site=None, seconds=None):
        return create_token(
            services, "ann", device=device, site=site, labels={"line": "3"},
            expires_seconds=seconds,
        )["token"]  # fmt: skip

    return make


def _devices(services):
    with reading(services.engine) as connection:
        return list(connection.execute(select(schema.devices)))


def test_a_device_with_a_token_becomes_part_of_the_fleet(services, token, request_of):
    enrol(services, request_of(token(), "gw-1"))
    [row] = _devices(services)
    assert (row.device, row.site, row.labels, row.status) == ("gw-1", "jfk", {"line": "3"},
                                                              "unknown")  # fmt: skip
    assert set(accounts(services)[0]) == {"gw-1"}


def test_the_answer_is_sealed_by_the_director_and_proved_with_the_token(
    services, token, request_of
):
    text = token()
    request = request_of(text, "gw-1")
    sealed = enrol(services, request)
    payload = KeyVerifier([services.director.public_key], 1).open(
        decode_envelope(sealed.body), ENROLMENT_TYPE
    )
    answer = msgspec.json.decode(payload, type=EnrolmentAnswer)
    assert answer.device == "gw-1"
    assert answer.nonce == request.nonce
    # the request's proof is an HMAC by the same secret, over other bytes
    assert len(sealed.mac) == 64
    assert sealed.mac != request.proof.hex()


def test_a_token_works_once(services, token, request_of):
    text = token()
    enrol(services, request_of(text, "gw-1"))
    with pytest.raises(ForbiddenError) as error:
        enrol(services, request_of(text, "gw-2"))
    assert error.value.code == "bad-token"
    assert len(_devices(services)) == 1


def test_of_two_devices_that_race_for_one_token_one_is_enrolled(services, token, request_of):
    text = token()

    def attempt(name):
        try:
            return enrol(services, request_of(text, name)).device
        except ForbiddenError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, [f"gw-{number}" for number in range(8)]))
    assert found.count("bad-token") == 7
    assert [row.device for row in _devices(services)] == [
        name for name in found if name != "bad-token"
    ]


def test_every_bad_token_is_refused_in_the_same_words(services, token, request_of):
    used, expired = token(), token()
    enrol(services, request_of(used, "gw-1"))
    with writing(services.engine) as connection:
        here = schema.enrolment_tokens.c.token_id == expired.partition(".")[0]
        connection.execute(update(schema.enrolment_tokens).where(here).values(expires_ms=1))
    good = token()
    wrong_secret = good.partition(".")[0] + "." + "A" * 32
    zero_secret = used.partition(".")[0] + "." + "A" * 32  # what a used token's secret is read as
    unknown = "t-000000000000." + "A" * 32
    requests = [
        request_of(text, "gw-2") for text in (used, expired, wrong_secret, zero_secret, unknown)
    ]
    requests.append(request_of(good, "gw-2", proof=b""))
    proved = request_of(good, "gw-2")
    requests.append(msgspec.structs.replace(proved, device="gw-3"))  # proved for another name
    sentences = set()
    for request in requests:
        with pytest.raises(ForbiddenError) as error:
            enrol(services, request)
        sentences.add((error.value.code, error.value.sentence))
    assert len(sentences) == 1
    assert len(_devices(services)) == 1


@pytest.mark.parametrize(("device", "site"), [("gw-9", None), (None, "lga")])
def test_a_bound_token_is_for_its_device_and_site_only(services, token, request_of, device, site):
    with pytest.raises(ForbiddenError) as error:
        enrol(services, request_of(token(device, site), "gw-1"))
    assert error.value.code == "token-bound"


def test_a_device_that_is_enrolled_comes_back_only_with_a_token_for_its_name(
    services, token, request_of
):
    enrol(services, request_of(token(), "gw-1"))
    before = accounts(services)[0]["gw-1"]
    with pytest.raises(ConflictError) as error:
        enrol(services, request_of(token(), "gw-1"))
    assert error.value.code == "already-enrolled"
    assert accounts(services)[0]["gw-1"] == before

    enrol(services, request_of(token("gw-1"), "gw-1"))
    assert len(_devices(services)) == 1


def test_a_refused_request_leaves_the_token_for_the_right_one(services, token, request_of):
    text = token("gw-1")
    with pytest.raises(ForbiddenError):
        enrol(services, request_of(text, "gw-2"))
    with pytest.raises(InvalidInputError, match="certificate request"):
        enrol(services, request_of(text, "gw-1", csr=b"short"))
    enrol(services, request_of(text, "gw-1"))


def test_a_revoked_device_has_no_account_and_may_enrol_anew(services, token, request_of):
    enrol(services, request_of(token(), "gw-1"))
    before = accounts(services)[0]["gw-1"]
    revoke(services, "gw-1", "ann")
    assert accounts(services)[0] == {}
    with pytest.raises(ConflictError, match="revoked before"):
        revoke(services, "gw-1", "ann")

    enrol(services, request_of(token(), "gw-1"))
    assert set(accounts(services)[0]) == {"gw-1"}
    assert accounts(services)[0]["gw-1"] != before


def test_nobody_is_enrolled_before_a_root_is_published_and_the_token_stays_good(
    services, request_of, api, signers
):
    token = create_token(services, "ann", device=None, site=None, labels={}, expires_seconds=None)
    request = request_of(token["token"], "gw-1")
    with pytest.raises(UnavailableError, match="shoal trust init") as error:
        enrol(services, request)
    assert error.value.code == "no-root"
    answer = api.post("/api/v1/enrolments", content=msgspec.json.encode(request))
    assert (answer.status_code, answer.json()["code"]) == (503, "no-root")
    assert _devices(services) == []

    signers.publish_first()
    assert enrol(services, request).device == "gw-1"


def test_the_answer_holds_the_newest_root_as_published(services, token, request_of, api):
    payload = decode_envelope(enrol(services, request_of(token(), "gw-1")).body).payload
    answer = msgspec.json.decode(payload, type=EnrolmentAnswer)
    assert answer.root == api.get("/repository/metadata/1.root.json").content


def test_tokens_are_listed_without_their_secrets(services, token):
    text = token().partition(".")[2]
    with reading(services.engine) as connection:
        found = list_tokens(connection)
        kept = connection.scalar(select(schema.enrolment_tokens.c.secret))
    assert "secret" not in found[0]
    assert text not in str(found)
    assert kept is not None


def test_the_secret_of_a_used_token_is_forgotten(services, token, request_of):
    enrol(services, request_of(token(), "gw-1"))
    with reading(services.engine) as connection:
        assert connection.scalar(select(schema.enrolment_tokens.c.secret)) is None


@pytest.mark.parametrize("seconds", [0, -1, MAX_EXPIRY_SECONDS + 1])
def test_a_token_lives_between_a_second_and_a_year(token, seconds):
    with pytest.raises(InvalidInputError, match="expires_seconds"):
        token(seconds=seconds)


@pytest.mark.parametrize(
    "labels", [{"": "x"}, {"a b": "x"}, {"a": ""}, {"a": "x,y"}, {"n" * 64: "x"}, {"a": "v" * 121},
               {str(number): "x" for number in range(33)}],
)  # fmt: skip
def test_labels_are_what_a_selector_can_name(services, labels):
    with pytest.raises(InvalidInputError, match="label"):
        create_token(services, "ann", device=None, site=None, labels=labels, expires_seconds=None)


@pytest.mark.parametrize("name", ["GW", "gw/1", "", "-gw", "g" * 64, "gw\n"])
def test_a_token_is_bound_to_names_only(token, name):
    with pytest.raises(InvalidInputError, match="device"):
        token(device=name)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[" * 50_000, b"\xff", b"x" * (MAX_ENVELOPE_BYTES + 1),
     b'{"token_id":"../x","device":"gw-1","site":"s","profile":"","csr":"","nonce":"","proof":""}'],
)  # fmt: skip
def test_what_is_no_request_is_refused(body):
    with pytest.raises(InvalidInputError, match="enrolment"):
        decode_request(body)


def test_passwords_are_derived_so_that_nothing_is_stored_and_none_is_like_another(services):
    one = services.device_password("gw-1", 1)
    others = [
        services.device_password("gw-1", 2),
        services.device_password("gw-2", 1),
        services.account_password("gw-1"),
        replace(services, broker_secret=b"x" * 32).device_password("gw-1", 1),
    ]
    assert one not in others
    digest = hmac.new(services.broker_secret, b"device|gw-1|1", hashlib.sha256).digest()
    assert len(one) == 43
    assert digest.hex() not in one
