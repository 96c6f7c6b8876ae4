"""Renewal: by the device's own key, in time, for the same key, and the same answer twice."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from agent.identity import check_certificate
from controller import schema
from controller.config import load_settings
from controller.database import reading, writing
from controller.enrolment import create_token, enrol, revoke
from controller.errors import ForbiddenError
from controller.identity import certificates
from controller.identity.authority import make_authority, read_authority
from controller.identity.renewal import renew
from shoal.csr import make_request, read_request
from shoal.errors import InvalidInputError, UntrustedError
from shoal.protocol.envelope import ENROLMENT_TYPE, decode_envelope, encode_envelope
from shoal.protocol.identity import ANSWER_TYPE, RENEWAL_TYPE, RenewalAnswer, RenewalRequest
from shoal.signing import FileSigner, KeyVerifier, seal

NONCE = bytes(range(24))


pytestmark = pytest.mark.usefixtures("rooted")


@pytest.fixture
def key(services, request_of):
    """The key of the enrolled device gw-1."""
    found = FileSigner.generate()
    token = create_token(services, "ann", device=None, site=None, labels={}, expires_seconds=None)
    enrol(services, request_of(token["token"], "gw-1", csr=make_request("gw-1", found)))
    return found


def _ask(key, device="gw-1", csr=None, kind=RENEWAL_TYPE):
    csr = make_request(device, key) if csr is None else csr
    request = RenewalRequest(device=device, nonce=NONCE, csr=csr)
    return encode_envelope(seal(msgspec.json.encode(request), kind, key))


def _renew(services, body):
    envelope = decode_envelope(renew(services, body))
    payload = KeyVerifier([services.director.public_key]).open(envelope, ANSWER_TYPE)
    answer = msgspec.json.decode(payload, type=RenewalAnswer)
    assert (answer.device, answer.nonce) == ("gw-1", NONCE)
    return x509.load_pem_x509_certificates(answer.certificate.encode())[0]


def _age(services, share):
    """Let the newest certificate be so old, as a share of its life."""
    moved = int(share * 90 * 86_400_000)
    c = schema.certificates.c
    with writing(services.engine) as connection:
        change = {"issued_ms": c.issued_ms - moved, "not_after_ms": c.not_after_ms - moved}
        connection.execute(update(schema.certificates).values(**change))


def _count(services):
    with reading(services.engine) as connection:
        return connection.scalar(select(func.count()).select_from(schema.certificates))


def test_a_device_gets_its_next_certificate_for_the_same_key(services, key):
    _age(services, 0.66)
    certificate = _renew(services, _ask(key))
    assert certificate.public_key().public_bytes_raw() == key.public_key
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert 89.9 < left.total_seconds() / 86400 <= 90
    assert _count(services) == 2


def test_asking_again_gives_the_same_certificate_again(services, key):
    _age(services, 0.66)
    body = _ask(key)
    first = _renew(services, body)
    for _ in range(20):  # a lost answer, or somebody who replays it
        assert _renew(services, body).serial_number == first.serial_number
    assert _count(services) == 2


def test_a_certificate_that_has_ended_is_not_renewed(services, key):
    _age(services, 1.001)
    with pytest.raises(ForbiddenError) as error:
        renew(services, _ask(key))
    assert error.value.code == "certificate-ended"


def test_a_revoked_device_gets_none(services, key):
    _age(services, 0.66)
    revoke(services, "gw-1", "ann")
    with pytest.raises(ForbiddenError) as error:
        renew(services, _ask(key))
    assert error.value.code == "renewal-refused"
    with reading(services.engine) as connection:
        assert len(certificates.taken_back(connection, services.now_ms())) == 1


def test_a_stranger_an_unknown_device_and_a_wrong_kind_are_refused_in_the_same_words(services, key):
    other = FileSigner.generate()
    sentences = set()
    for body in (_ask(other), _ask(key, "gw-2"), _ask(other, csr=make_request("gw-1", key)),
                 _ask(key, kind=ENROLMENT_TYPE)):  # fmt: skip
        with pytest.raises(ForbiddenError) as error:
            renew(services, body)
        sentences.add(error.value.sentence)
    assert len(sentences) == 1


def test_a_renewal_for_another_key_is_refused(services, key):
    with pytest.raises(InvalidInputError, match="another key"):
        renew(services, _ask(key, csr=make_request("gw-1", FileSigner.generate())))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(payload):
    with pytest.raises((InvalidInputError, UntrustedError)):
        read_request(payload)


def test_enrolling_again_takes_back_what_the_device_held(services, key, request_of):
    token = create_token(
        services, "ann", device="gw-1", site=None, labels={}, expires_seconds=None
    )["token"]  # fmt: skip
    assert enrol(services, request_of(token, "gw-1")).came_back
    with pytest.raises(ForbiddenError):
        renew(services, _ask(key))
    with reading(services.engine) as connection:
        assert len(certificates.taken_back(connection, services.now_ms())) == 1


def test_a_certificate_that_would_have_ended_needs_no_place_in_the_list(services, key):
    revoke(services, "gw-1", "ann")
    _age(services, 1.1)
    with reading(services.engine) as connection:
        assert certificates.taken_back(connection, services.now_ms()) == []


def test_the_fleet_ca_may_be_an_intermediate_of_the_sites_own(
    services, request_of, site_authorities
):
    root, services.identities.fleet = site_authorities
    token = create_token(services, "ann", device=None, site=None, labels={}, expires_seconds=None)
    sealed = enrol(services, request_of(token["token"], "gw-1"))
    answer = msgspec.json.decode(decode_envelope(sealed.body).payload)
    leaf, above = x509.load_pem_x509_certificates(answer["certificate"].encode())
    leaf.verify_directly_issued_by(above)
    above.verify_directly_issued_by(root.certificate)
    key = leaf.public_key().public_bytes_raw()
    pinned = answer["fleet_ca"]
    assert check_certificate(answer["certificate"], pinned, "gw-1", key) == leaf
    stranger = make_authority("Site root", datetime.now(UTC)).chain_pem.decode()
    for wrong in ((stranger, "gw-1", key), (pinned, "gw-2", key), (pinned, "gw-1", bytes(32))):
        with pytest.raises(UntrustedError):
            check_certificate(answer["certificate"], *wrong)


def test_authorities_that_do_not_fit_are_refused_in_words():
    one, other = (make_authority(name, datetime.now(UTC)) for name in ("a", "b"))
    with pytest.raises(InvalidInputError, match="not of this key"):
        read_authority("fleet CA", one.key_pem, other.chain_pem)
    with pytest.raises(InvalidInputError, match="not signed by the next"):
        read_authority("fleet CA", one.key_pem, one.chain_pem + other.chain_pem)
    with pytest.raises(InvalidInputError, match="fleet CA"):
        read_authority("fleet CA", b"", one.chain_pem)


def test_settings_name_both_files_of_an_authority_or_none(tmp_path):
    path = tmp_path / "controller.toml"
    path.write_text('[enrolment]\nca_key = "x"\ncertificate_days = 0\n[broker]\ntls = false\n'
                    'host = "0.0.0.0"\n')  # fmt: skip
    with pytest.raises(InvalidInputError) as error:
        load_settings(path)
    for words in ("go together", "certificate_days", "broker.tls"):
        assert words in error.value.sentence
