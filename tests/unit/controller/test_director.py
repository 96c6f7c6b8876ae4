"""Signing desired states: numbers rise, changes are signed, and nothing is let expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from controller import director, schema
from controller.database import reading, writing
from controller.director import (
    RENEW_BEFORE,
    VALID,
    find_unheard,
    find_unpublished,
    mark_dirty,
    sign_pending,
)
from controller.enrolment import revoke
from controller.ingest.write import upsert
from shoal.protocol.desired import check_desired, decode_desired
from shoal.protocol.envelope import DESIRED_TYPE, decode_envelope
from shoal.signing import KeyVerifier

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def pump(services, enrolled, make_pump, release):
    """Two releases of the pump, and two devices."""
    for number in (1, 2):
        release(make_pump(f"{number}.0", number))
    enrolled("gw-1")
    enrolled("gw-2")


@pytest.fixture
def assign(services, pump):
    def run(device, sequence):
        with writing(services.engine) as connection:
            key = {"device": device, "model": "pump"}
            upsert(
                connection, schema.assignments, key, {"release_sequence": sequence, "updated_ms": 1}
            )
            mark_dirty(connection, device)

    return run


@pytest.fixture
def sign(services):
    return lambda now=NOW: sign_pending(services.engine, services.director, now)


@pytest.fixture
def read(services):
    """The desired state of a device, verified as the device does."""

    def run(device):
        with reading(services.engine) as connection:
            query = select(schema.desired).where(schema.desired.c.device == device)
            row = connection.execute(query).one()
        verifier = KeyVerifier([services.director.public_key], 1)
        state = decode_desired(verifier.open(decode_envelope(row.envelope), DESIRED_TYPE))
        assert state.sequence == row.sequence
        return state

    return run


def test_an_assignment_is_signed_for_its_device_and_obeyed(assign, sign, read):
    assign("gw-1", 1)
    assert sign() == 1
    state = read("gw-1")
    check_desired(state, device="gw-1", floor=0, now=NOW)
    assert [(one.model, one.version, one.release_sequence) for one in state.models] == [
        ("pump", "1.0", 1)
    ]


def test_the_sequence_rises_with_every_change_and_only_then(assign, sign, read):
    sequences = []
    for sequence in (1, 2, 1):
        assign("gw-1", sequence)
        assert sign() == 1
        assert sign() == 0
        sequences.append(read("gw-1").sequence)
    assert sequences == [1, 2, 3]


def test_devices_have_sequences_of_their_own(assign, sign, read):
    assign("gw-1", 1)
    sign()
    assign("gw-1", 2)
    assign("gw-2", 1)
    assert sign() == 2
    assert (read("gw-1").sequence, read("gw-2").sequence) == (2, 1)


def test_a_desired_state_is_signed_anew_before_it_expires(assign, sign, read):
    assign("gw-1", 1)
    sign()
    assert sign(NOW + VALID - RENEW_BEFORE - timedelta(seconds=1)) == 0
    later = NOW + VALID - RENEW_BEFORE + timedelta(seconds=1)
    assert sign(later) == 1
    state = read("gw-1")
    assert (state.sequence, state.expires) == (2, later + VALID)
    check_desired(state, device="gw-1", floor=1, now=NOW + VALID)


def test_a_revoked_device_is_signed_and_sent_nothing(services, assign, sign):
    assign("gw-1", 1)
    sign()
    assign("gw-1", 2)
    revoke(services, "gw-1", "ann")
    assert sign() == 0
    with reading(services.engine) as connection:
        assert find_unpublished(connection) == []


def test_what_the_broker_has_is_not_published_again(services, assign, sign):
    assign("gw-1", 1)
    sign()
    with writing(services.engine) as connection:
        assert [one.sequence for one in find_unpublished(connection)] == [1]
        connection.execute(update(schema.desired).values(published_sequence=1))
        assert find_unpublished(connection) == []


@pytest.mark.parametrize(
    ("online", "reported", "unheard"), [(True, 0, 1), (True, 1, 0), (False, 0, 0)]
)
def test_an_online_device_that_has_not_accepted_is_reminded(
    services, assign, sign, online, reported, unheard
):
    assign("gw-1", 1)
    sign()
    with writing(services.engine) as connection:
        connection.execute(
            update(schema.devices).values(online=online, reported_desired_sequence=reported)
        )
        assert len(find_unheard(connection)) == unheard


def test_a_round_signs_no_more_than_a_batch(monkeypatch, assign, sign):
    monkeypatch.setattr(director, "BATCH", 1)
    assign("gw-1", 1)
    assign("gw-2", 1)
    assert [sign(), sign(), sign()] == [1, 1, 0]
