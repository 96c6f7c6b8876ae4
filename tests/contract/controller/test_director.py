"""The director at a real broker: desired states lie there retained, and come back when lost."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert, select, update

from controller import enrolment, schema
from controller.broker import DIRECTOR_ACCOUNT
from controller.database import reading, writing
from controller.director import Director, DirectorLink, mark_dirty
from shoal.protocol.desired import decode_desired
from shoal.protocol.envelope import DESIRED_TYPE, decode_envelope
from shoal.signing import KeyVerifier

pytestmark = pytest.mark.contract

DESIRED = "shoal/v1/jfk/gw-1/desired"


@pytest.fixture
async def director(services, broker, until):
    link = DirectorLink(broker.controller_host, broker.controller_port, services.settings)
    director = Director(services.engine, services.director, link)
    await until(lambda: director.connected)
    yield director
    await asyncio.to_thread(director.close)


@pytest.fixture
def assign(services):
    def run(device):
        with writing(services.engine) as connection:
            mark_dirty(connection, device)

    return run


def _sequence(services, message):
    verifier = KeyVerifier([services.director.public_key], 1)
    state = decode_desired(verifier.open(decode_envelope(message.payload), DESIRED_TYPE))
    assert state.device == "gw-1"
    return state.sequence


def _published(services):
    with reading(services.engine) as connection:
        return connection.scalar(select(schema.desired.c.published_sequence))


async def test_a_desired_state_is_published_retained_and_again_when_it_changes(
    director, services, assign, connect
):
    device = await connect("gw-1")
    assert await device.subscribe(DESIRED)
    for sequence in (1, 2):
        assign("gw-1")
        await asyncio.to_thread(director.work)
        assert _sequence(services, await device.receive()) == sequence
        assert _published(services) == sequence

    late = await connect("gw-1", client_id="gw-1")
    assert await late.subscribe(DESIRED)
    message = await late.receive()
    assert (message.retained, _sequence(services, message)) == (True, 2)


async def test_what_the_broker_has_lost_is_published_again_to_who_has_not_accepted_it(
    director, services, assign, connect, until
):
    assign("gw-1")
    await asyncio.to_thread(director.work)
    thief = await connect(DIRECTOR_ACCOUNT)  # takes the director's place for a moment
    await thief.publish(DESIRED, b"", retain=True)
    thief.close()
    await until(lambda: director.connected)
    device = await connect("gw-1")
    assert await device.subscribe(DESIRED)
    with writing(services.engine) as connection:
        here = schema.devices.c.device == "gw-1"
        connection.execute(update(schema.devices).where(here).values(online=True))

    await asyncio.to_thread(director.remind)

    assert _sequence(services, await device.receive()) == 1
    with writing(services.engine) as connection:
        connection.execute(update(schema.devices).values(reported_desired_sequence=1))
    await asyncio.to_thread(director.remind)
    with pytest.raises(TimeoutError):
        await device.receive(0.3)


async def test_what_was_signed_while_the_broker_was_away_is_published_when_it_is_back(
    director, services, assign, broker, connect, until
):
    await broker.stop()
    await until(lambda: not director.connected)
    assign("gw-1")
    await asyncio.to_thread(director.work)
    assert _published(services) == 0

    await broker.start()
    await until(lambda: director.connected)
    await asyncio.to_thread(director.work)

    assert _published(services) == 1
    device = await connect("gw-1")
    assert await device.subscribe(DESIRED)
    assert _sequence(services, await device.receive()) == 1


async def test_a_revoked_device_is_cut_off_and_stays_out(services, broker, connect, held_by):
    services.broker = broker
    with writing(services.engine) as connection:
        row = {"device": "gw-7", "site": "jfk", "public_key": b"k" * 32, "enrolled_ms": 5}
        connection.execute(insert(schema.devices).values(**row))
    await enrolment.update_accounts(services)
    context = held_by(services, "gw-7")
    device = await connect("gw-7", context=context)

    enrolment.revoke(services, "gw-7", "ann")
    await enrolment.update_accounts(services)
    await enrolment.cut_off(services, "gw-7")

    await device.disconnected()
    await asyncio.to_thread(device.close)
    with pytest.raises(PermissionError):
        await connect("gw-7", context=context)
