"""What the project relies on in any broker: at least once, sessions, retained, last will."""

from __future__ import annotations

import asyncio

import pytest

from controller.broker import DIRECTOR_ACCOUNT, INGEST_ACCOUNT

pytestmark = pytest.mark.contract

STATE = "shoal/v1/jfk/gw-1/state"
WINDOW = "shoal/v1/jfk/gw-1/models/weather/window"
PASSWORD = "unused-with-certificates"
DESIRED = "shoal/v1/jfk/gw-1/desired"


async def test_delivers_what_a_device_publishes_to_ingest(connect):
    ingest, device = await connect(INGEST_ACCOUNT), await connect("gw-1")
    assert await ingest.subscribe("shoal/v1/+/+/state", "shoal/v1/+/+/models/+/window")

    await device.publish(WINDOW, b"1")
    await device.publish(STATE, b"2")

    got = [await ingest.receive(), await ingest.receive()]
    assert {(one.topic, one.payload) for one in got} == {(WINDOW, b"1"), (STATE, b"2")}


async def test_gives_a_late_subscriber_the_last_retained_message_only(connect):
    director = await connect(DIRECTOR_ACCOUNT)
    await director.publish(DESIRED, b"old", retain=True)
    await director.publish(DESIRED, b"new", retain=True)

    device = await connect("gw-1")
    assert await device.subscribe("shoal/v1/+/gw-1/desired", "shoal/v1/+/gw-1/acked")

    got = await device.receive()
    assert (got.payload, got.retained) == (b"new", True)
    with pytest.raises(TimeoutError):
        await device.receive(0.3)


async def test_forgets_a_retained_message_when_an_empty_one_follows(connect):
    director = await connect(DIRECTOR_ACCOUNT)
    await director.publish(DESIRED, b"old", retain=True)
    await director.publish(DESIRED, b"", retain=True)

    device = await connect("gw-1")
    assert await device.subscribe("shoal/v1/+/gw-1/desired")

    with pytest.raises(TimeoutError):
        await device.receive(0.3)


async def test_publishes_the_last_will_of_a_device_whose_connection_breaks(connect):
    ingest = await connect(INGEST_ACCOUNT)
    assert await ingest.subscribe("shoal/v1/+/+/state")
    device = await connect("gw-1", will=(STATE, b"gone"))

    device.cut()

    assert (await ingest.receive()).payload == b"gone"
    late = await connect(DIRECTOR_ACCOUNT)
    assert await late.subscribe("shoal/v1/+/+/state")
    assert (await late.receive()).retained


async def test_keeps_the_session_of_a_client_that_was_away(connect):
    first = await connect(INGEST_ACCOUNT, clean=False)
    assert await first.subscribe("shoal/v1/+/+/models/+/window")
    first.close()
    device = await connect("gw-1")
    for number in range(30):
        await device.publish(WINDOW, b"%d" % number)

    second = await connect(INGEST_ACCOUNT, clean=False)

    got = {(await second.receive()).payload for _ in range(30)}
    assert got == {b"%d" % number for number in range(30)}


async def test_sends_again_what_was_not_acknowledged(connect):
    first = await connect(INGEST_ACCOUNT, clean=False, manual_ack=True)
    assert await first.subscribe("shoal/v1/+/+/models/+/window")
    device = await connect("gw-1")
    await device.publish(WINDOW, b"once")
    assert (await first.receive()).payload == b"once"

    first.cut()
    await first.disconnected()

    assert (await first.receive()).payload == b"once"


async def test_loses_nothing_in_a_burst_from_fifty_publishers(broker, connect):
    publishers, each = 50, 40
    names = [f"burst-{number}" for number in range(publishers)]
    await broker.set_accounts(dict.fromkeys(names, PASSWORD), {INGEST_ACCOUNT: PASSWORD})
    ingest = await connect(INGEST_ACCOUNT, clean=False)
    assert await ingest.subscribe("shoal/v1/+/+/models/+/window")
    peers = [await connect(name) for name in names]

    async def publish_all(name, peer):
        topic = f"shoal/v1/jfk/{name}/models/weather/window"
        infos = [peer.client.publish(topic, b"%d" % number, qos=1) for number in range(each)]
        for info in infos:
            await asyncio.to_thread(info.wait_for_publish, 30)
        assert all(info.is_published() for info in infos)

    async with asyncio.timeout(60):
        await asyncio.gather(*map(publish_all, names, peers))
        got = {
            (one.topic, one.payload)
            for one in [await ingest.receive() for _ in range(publishers * each)]
        }
    assert len(got) == publishers * each
