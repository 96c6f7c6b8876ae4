"""Enrolment: tokens are parsed strictly, and an answer is believed only from who made the token."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enrol import check_answer, check_pinned_answer, parse_token
from shoal.errors import InvalidInputError, UntrustedError
from shoal.protocol.desired import EnrolmentAnswer, EnrolmentRequest
from shoal.protocol.envelope import DESIRED_TYPE, ENROLMENT_TYPE, Envelope, encode_envelope
from shoal.signing import FileSigner, key_id, seal

SECRET = bytes(range(32))
NONCE = bytes(24)
TOKEN = base64.urlsafe_b64encode(SECRET).decode().rstrip("=")


@pytest.fixture(scope="module")
def director():
    """The key of the controller that made the token."""
    return FileSigner.generate()


def _answer(director, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "device": "gw-1",
        "site": "jfk",
        "nonce": NONCE,
        "director_keys": [director.public_key],
        "broker_host": "localhost",
        "broker_port": 8883,
        "broker_ca": "",
        "fleet_ca": "",
        "certificate": "",
        "repository_url": "http://localhost",
        "root": b"{}",
        **changes,
    }
    return msgspec.json.encode(EnrolmentAnswer(**values))


def _mac(envelope: Envelope, secret=SECRET) -> str:
    return hmac.new(secret, envelope.payload, hashlib.sha256).hexdigest()


def _request(device="gw-1") -> EnrolmentRequest:
    return EnrolmentRequest(device=device, site="jfk", profile="", csr=b"", nonce=NONCE)


def _refused(envelope, mac, device="gw-1"):
    body = envelope if isinstance(envelope, bytes) else encode_envelope(envelope)
    with pytest.raises(UntrustedError) as caught:
        check_answer(body, mac, SECRET, _request(device))
    return caught.value.code


@pytest.mark.parametrize("token", [f"t1.{TOKEN}", f"  t1.{TOKEN}\n", f"t1.{TOKEN}="])
def test_a_token_is_an_id_and_a_secret(token):
    assert parse_token(token) == ("t1", SECRET)


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True), st.binary(min_size=16))
def test_every_token_that_a_controller_makes_is_parsed(token_id, secret):
    text = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    assert parse_token(f"{token_id}.{text}") == (token_id, secret)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "t1",
        "t1.",
        f".{TOKEN}",
        f"T1.{TOKEN}",
        f"t/1.{TOKEN}",
        "t1.c2hvcnQ",
        f"t1.ü{TOKEN}",
    ],
)
def test_a_broken_token_is_refused_without_repeating_it(token):
    with pytest.raises(InvalidInputError, match=r"expected <id>\.<secret>") as caught:
        parse_token(token)
    assert TOKEN not in str(caught.value)


@given(st.text(max_size=100))
def test_any_text_is_a_token_or_refused(token):
    try:
        _, secret = parse_token(token)
    except InvalidInputError:
        return
    assert len(secret) >= 16


def test_a_good_answer_is_believed(director):
    envelope = seal(_answer(director), ENROLMENT_TYPE, director)
    answer = check_answer(encode_envelope(envelope), _mac(envelope), SECRET, _request())
    assert (answer.device, answer.site, answer.broker_port) == ("gw-1", "jfk", 8883)
    assert answer.director_keys == [director.public_key]


@pytest.mark.parametrize("mac", ["", "0" * 64, "ü", "é" * 64])
def test_a_wrong_mac_is_refused(director, mac):
    envelope = seal(_answer(director), ENROLMENT_TYPE, director)
    assert _refused(envelope, mac) == "wrong-controller"


def test_a_mac_by_another_secret_is_refused(director):
    envelope = seal(_answer(director), ENROLMENT_TYPE, director)
    assert _refused(envelope, _mac(envelope, bytes(32))) == "wrong-controller"


def test_a_changed_answer_under_a_good_mac_is_refused(director):
    envelope = seal(_answer(director), ENROLMENT_TYPE, director)
    changed = msgspec.structs.replace(envelope, payload=_answer(director, broker_host="elsewhere"))
    assert _refused(changed, _mac(envelope)) == "wrong-controller"


def test_an_answer_for_another_device_is_refused(director):
    envelope = seal(_answer(director), ENROLMENT_TYPE, director)
    assert _refused(envelope, _mac(envelope), device="gw-2") == "wrong-device"


def test_an_answer_to_another_request_is_refused(director):
    envelope = seal(_answer(director, nonce=bytes(23) + b"x"), ENROLMENT_TYPE, director)
    assert _refused(envelope, _mac(envelope)) == "wrong-answer"


def test_without_a_token_an_answer_is_believed_by_the_controllers_fingerprint_only(director):
    envelope = seal(_answer(director), ENROLMENT_TYPE, director)
    body, pinned = encode_envelope(envelope), key_id(director.public_key)
    assert check_pinned_answer(body, pinned, _request()).device == "gw-1"
    with pytest.raises(UntrustedError) as caught:
        check_pinned_answer(body, key_id(bytes(32)), _request())
    assert caught.value.code == "wrong-controller"


def test_a_thief_who_lists_the_real_key_beside_his_own_is_refused(director):
    thief = FileSigner.generate()
    answer = _answer(thief, director_keys=[thief.public_key, director.public_key])
    body = encode_envelope(seal(answer, ENROLMENT_TYPE, thief))
    with pytest.raises(UntrustedError) as caught:
        check_pinned_answer(body, key_id(director.public_key), _request())
    assert caught.value.code == "unknown-key"


def test_an_answer_signed_by_another_key_is_refused(director):
    envelope = seal(_answer(director), ENROLMENT_TYPE, FileSigner.generate())
    assert _refused(envelope, _mac(envelope)) == "unknown-key"


def test_an_answer_with_a_broken_signature_is_refused(director):
    envelope = seal(_answer(director), ENROLMENT_TYPE, director)
    envelope.signatures[0].sig = bytes(64)
    assert _refused(envelope, _mac(envelope)) == "bad-signature"


def test_an_answer_that_names_no_director_key_is_refused(director):
    envelope = seal(_answer(director, director_keys=[]), ENROLMENT_TYPE, director)
    assert _refused(envelope, _mac(envelope)) == "unknown-key"


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_an_answer_with_a_key_that_is_none_is_refused(director, key):
    answer = _answer(director, director_keys=[key, director.public_key])
    envelope = seal(answer, ENROLMENT_TYPE, director)
    assert _refused(envelope, _mac(envelope)) == "bad-key"


@pytest.mark.parametrize("root", [None, b""])
def test_an_answer_without_a_root_is_refused(director, root):
    answer = msgspec.json.decode(_answer(director)) | {"root": ""}
    if root is None:
        del answer["root"]
    envelope = seal(msgspec.json.encode(answer), ENROLMENT_TYPE, director)
    assert _refused(envelope, _mac(envelope)) == "bad-answer"


def test_a_statement_of_another_kind_is_refused(director):
    envelope = seal(_answer(director), DESIRED_TYPE, director)
    assert _refused(envelope, _mac(envelope)) == "wrong-payload-type"


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[]", b"\xff", b'{"device": "\xff"}', b"[" * 9000]
)
def test_an_authentic_answer_that_is_none_is_refused(director, payload):
    envelope = seal(payload, ENROLMENT_TYPE, director)
    assert _refused(envelope, _mac(envelope)) == "bad-answer"


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 60_000])
def test_a_body_that_is_no_envelope_is_refused(body):
    assert _refused(body, "0" * 64) == "envelope-malformed"
