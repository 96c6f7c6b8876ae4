"""Devices without a token: announced, waiting, let in or refused; and how many may wait."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from cryptography import x509
from sqlalchemy import func, select, update

from controller import schema
from controller.database import reading, writing
from controller.enrolment import Sealed, create_token, enrol, revoke
from controller.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TooManyError,
    UnavailableError,
)
from controller.identity import admission, certificates
from controller.identity.admission import FORGET_MS, MAX_PER_ADDRESS
from controller.identity.authority import common_name
from shoal.csr import make_request
from shoal.errors import InvalidInputError
from shoal.protocol.desired import EnrolmentAnswer, EnrolmentRequest
from shoal.protocol.envelope import decode_envelope
from shoal.protocol.identity import Waiting
from shoal.signing import FileSigner, key_id

pytestmark = pytest.mark.usefixtures("rooted")


@pytest.fixture
def ask(services):
    """`ask("gw-1")`: one request without a token."""

    def make(device, key=None, address="192.0.2.7", **changes):
        key = key or FileSigner.generate()
        request = EnrolmentRequest(
            device=device, site="jfk", profile="", csr=make_request(device, key), nonce=bytes(24)
        )
        return enrol(services, msgspec.structs.replace(request, **changes), address)

    return make


def _decide(services, wanted, approve=True):
    return admission.decide(services, "ann", wanted, approve=approve, labels={"line": "3"})


def _announce(services, key, device="gw-1", site=None):
    return admission.preauthorise(
        services, "ann", key.public_key, device=device, site=site, labels={}
    )


def _waiting(services):
    with reading(services.engine) as connection:
        return admission.list_waiting(connection, services.now_ms())


def _answer(sealed):
    return msgspec.json.decode(decode_envelope(sealed.body).payload, type=EnrolmentAnswer)


def test_an_unknown_device_waits_and_comes_in_once_it_is_approved(services, ask):
    key = FileSigner.generate()
    assert ask("gw-1", key) == ask("gw-1", key) == Waiting(fingerprint=key_id(key.public_key))
    [row] = _waiting(services)
    assert (row["device"], row["state"], row["address"]) == ("gw-1", "pending", "192.0.2.7")

    assert _decide(services, "gw-1")["fingerprint"] == key_id(key.public_key)
    sealed = ask("gw-1", key)

    assert isinstance(sealed, Sealed)
    [certificate] = x509.load_pem_x509_certificates(_answer(sealed).certificate.encode())
    assert common_name(certificate) == "gw-1"
    assert sealed.mac == ""
    with reading(services.engine) as connection:
        row = connection.execute(select(schema.devices)).one()
    assert (row.public_key, row.labels) == (key.public_key, {"line": "3"})
    assert _waiting(services) == []


def test_an_approval_lets_in_once(services, ask):
    key = FileSigner.generate()
    ask("gw-1", key)
    _decide(services, key_id(key.public_key)[:10])
    ask("gw-1", key)
    with pytest.raises(ConflictError, match="is enrolled"):
        ask("gw-1", key)


def test_a_rejected_key_is_refused_and_another_may_ask(services, ask):
    key = FileSigner.generate()
    ask("gw-1", key)
    _decide(services, "gw-1", approve=False)
    with pytest.raises(ForbiddenError) as error:
        ask("gw-1", key)
    assert error.value.code == "rejected"
    assert isinstance(ask("gw-1"), Waiting)


def test_a_device_cannot_change_its_name_between_asking_and_approval(services, ask):
    """Row 35: an operator would approve one and let in another."""
    key = FileSigner.generate()
    ask("gw-1", key)
    for changes in ({"device": "gw-2"}, {"site": "lga"}):
        with pytest.raises(ForbiddenError) as error:
            ask(key=key, **{"device": "gw-1"} | changes)
        assert error.value.code == "admission-bound"
    _decide(services, "gw-1")
    with pytest.raises(ForbiddenError):
        ask("gw-2", key)
    assert isinstance(ask("gw-1", key), Sealed)


def test_two_keys_under_one_name_are_told_apart_by_fingerprint(services, ask):
    keys = [FileSigner.generate(), FileSigner.generate()]
    for key in keys:
        ask("gw-1", key)
    with pytest.raises(ConflictError, match="several wait"):
        _decide(services, "gw-1")
    _decide(services, key_id(keys[1].public_key))
    assert isinstance(ask("gw-1", keys[1]), Sealed)
    assert isinstance(ask("gw-1", keys[0]), Waiting)  # asked before; its approval would not do
    _decide(services, "gw-1")
    with pytest.raises(ConflictError, match="is enrolled"):
        ask("gw-1", keys[0])


def test_an_announced_key_comes_in_under_its_own_name_and_site_only(services, ask):
    key = FileSigner.generate()
    _announce(services, key, site="jfk")
    for changes in ({"device": "gw-2"}, {"site": "lga"}):
        with pytest.raises(ForbiddenError):
            ask(key=key, **{"device": "gw-1"} | changes)
    assert isinstance(ask("gw-1", key), Sealed)


def test_an_announcement_brings_an_enrolled_device_back_and_takes_its_old_certificate(
    services, enrolled, ask
):
    enrolled("gw-1")
    key = FileSigner.generate()
    _announce(services, key)
    sealed = ask("gw-1", key)
    assert sealed.came_back
    with reading(services.engine) as connection:
        assert len(certificates.taken_back(connection, services.now_ms())) == 1


def test_revoking_withdraws_an_announcement(services, enrolled, ask):
    enrolled("gw-1")
    key = FileSigner.generate()
    _announce(services, key)
    revoke(services, "gw-1", "ann")
    assert isinstance(ask("gw-1", key), Waiting)


def test_the_name_of_an_enrolled_device_is_not_to_be_asked_for(services, enrolled, ask):
    enrolled("gw-1")
    with pytest.raises(ConflictError) as error:
        ask("gw-1")
    assert error.value.code == "already-enrolled"
    assert _waiting(services) == []


def test_so_many_wait_and_no_more_of_one_address_or_of_all(services, ask):
    services.settings = replace(
        services.settings, enrolment=replace(services.settings.enrolment, max_pending=4)
    )
    for number in range(4):
        ask(f"gw-{number}", address=f"192.0.2.{number}")
    with pytest.raises(UnavailableError) as error:
        ask("gw-9", address="192.0.2.9")
    assert error.value.code == "too-many-pending"
    assert len(_waiting(services)) == 4


def test_one_address_cannot_fill_the_queue(services, ask):
    refused = 0
    for number in range(MAX_PER_ADDRESS + 20):
        try:
            ask(f"gw-{number}")
        except (UnavailableError, TooManyError):
            refused += 1
    assert refused == 20
    assert isinstance(ask("gw-other", address="192.0.2.8"), Waiting)


def test_who_gives_up_is_forgotten_after_a_day_and_who_is_announced_is_not(services, ask):
    ask("gw-1")
    _announce(services, FileSigner.generate(), device="gw-2")
    with writing(services.engine) as connection:
        old = services.now_ms() - FORGET_MS - 1
        connection.execute(update(schema.admissions).values(seen_ms=old))
    assert [row["device"] for row in _waiting(services)] == ["gw-2"]
    with pytest.raises(NotFoundError):
        _decide(services, "gw-1" * 3)
    ask("gw-3")
    with reading(services.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(schema.admissions)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"csr": b""},
        {"csr": b"\x30\x80" + bytes(100)},
        {"csr": bytes(5000)},
        {"facts": {"x": "y" * 9000}},
        {"facts": {"x": "\x1b[2J"}},
        {"facts": {"a\nb": 1}},
        {"profile": "\u202egnp"},
    ],
)
def test_what_is_not_fit_to_be_shown_or_signed_is_refused(services, ask, changes):
    with pytest.raises(InvalidInputError):
        ask("gw-1", **changes)
    assert _waiting(services) == []


def test_a_request_signed_by_another_key_is_refused(services, ask):
    """Row 35: nobody asks for a certificate of a key that is not theirs."""
    request = bytearray(make_request("gw-1", FileSigner.generate()))
    request[-1] ^= 1
    with pytest.raises(InvalidInputError, match="signed it"):
        ask("gw-1", csr=bytes(request))


def test_a_certificate_has_the_enrolled_name_whatever_the_request_says(services, request_of):
    """Row 35: a device that asks to be the controller."""
    for wanted in ("controller_ingest", "gw-2", "#"):
        token = create_token(
            services, "ann", device="gw-1", site=None, labels={}, expires_seconds=None
        )["token"]  # fmt: skip
        csr = make_request(wanted, FileSigner.generate())
        answer = _answer(enrol(services, request_of(token, "gw-1", csr=csr)))
        [certificate] = x509.load_pem_x509_certificates(answer.certificate.encode())
        assert common_name(certificate) == "gw-1"
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        days = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert 90 <= days.total_seconds() / 86400 <= 90.1


def test_wrong_tokens_are_listened_to_so_often_only_and_right_ones_always(services, request_of):
    """Row 35: guessing."""
    codes = []
    for _ in range(100):
        try:
            enrol(services, request_of("t-000000000000." + "A" * 32, "gw-1"), "192.0.2.7")
        except (ForbiddenError, TooManyError) as error:
            codes.append(error.code)
    assert codes[0] == "bad-token"
    assert codes[-1] == "too-many-requests"
    token = create_token(
        services, "ann", device=None, site=None, labels={}, expires_seconds=None
    )["token"]  # fmt: skip
    assert isinstance(enrol(services, request_of(token, "gw-1"), "192.0.2.7"), Sealed)
