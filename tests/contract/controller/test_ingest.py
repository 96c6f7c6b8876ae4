"""The ingest process: commits first, acknowledges after, and survives what it is sent."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from sqlalchemy import insert, select, update

from controller import schema
from controller.broker import DIRECTOR_ACCOUNT, INGEST_ACCOUNT
from controller.database import reading, writing
from shoal.protocol import MAX_MESSAGE_BYTES
from shoal.protocol.messages import decode
from shoal.protocol.topics import Channel

pytestmark = pytest.mark.contract

WINDOW = "shoal/v1/jfk/gw-1/models/pump/window"
ACKED = "shoal/v1/jfk/gw-1/acked"


async def _acked(peer, last):
    """Wait until the controller has said that 1 to `last` are committed; nothing more may be."""
    while True:
        acked = decode(Channel.ACKED, (await peer.receive(40)).payload)
        assert acked.device == "gw-1"
        assert acked.ranges[-1][1] <= last
        if acked.ranges == [(1, last)]:
            return acked


def _starts(services):
    with reading(services.engine) as connection:
        return sorted(connection.scalars(select(schema.windows.c.start_ms)))


async def test_commits_each_message_once_and_says_so_whatever_the_order(
    ingest, connect, window, services
):
    device = await connect("gw-1")
    assert await device.subscribe(ACKED)
    order = list(range(1, 41)) + random.Random(1).choices(range(1, 41), k=20)
    random.Random(2).shuffle(order)
    for seq in order:
        await device.publish(WINDOW, window(seq))

    acked = await _acked(device, 40)

    assert acked.boot_id == "b1"
    assert _starts(services) == list(range(1, 41))
    late = await connect("gw-1", client_id="gw-1")
    assert await late.subscribe(ACKED)
    again = await late.receive()
    assert again.retained
    assert decode(Channel.ACKED, again.payload) == acked


async def test_says_acked_again_to_a_device_that_asks_by_sending_again(ingest, connect, window):
    device = await connect("gw-1")
    assert await device.subscribe(ACKED)
    await device.publish(WINDOW, window(1))
    await _acked(device, 1)
    await ingest.kill()
    await ingest.start()
    await device.publish(WINDOW, window(1))
    await _acked(device, 1)


@pytest.mark.parametrize("point", ["before the commit", "before the acknowledgement"])
async def test_a_kill_around_the_commit_loses_nothing_and_counts_nothing_twice(
    ingest, connect, window, services, point
):
    device = await connect("gw-1")
    assert await device.subscribe(ACKED)
    await ingest.kill()
    await ingest.start(dies=point)
    for seq in range(1, 11):
        await device.publish(WINDOW, window(seq))
    assert await ingest.ended() == -9
    committed = _starts(services)
    assert bool(committed) is (point == "before the acknowledgement")

    await ingest.start()  # the device sends nothing again: the broker does

    await _acked(device, 10)
    assert _starts(services) == list(range(1, 11))


async def test_kills_in_a_burst_lose_nothing_and_count_nothing_twice(
    ingest, connect, window, services, until, count
):
    device = await connect("gw-1")
    assert await device.subscribe(ACKED)
    total, step = 600, 150
    for first in range(1, total, step):
        for seq in range(first, first + step):
            device.client.publish(WINDOW, window(seq), qos=1)
        await until(lambda first=first: count() > first)
        await ingest.kill()
        await ingest.start()
    await until(lambda: count() == total)

    for seq in range(1, total + 1):  # as a device does that has not heard what is committed
        device.client.publish(WINDOW, window(seq), qos=1)
    await _acked(device, total)
    assert _starts(services) == list(range(1, total + 1))


HOSTILE = [
    (WINDOW, b"\x00\xff", "invalid-message"),
    (WINDOW, b"{", "invalid-message"),
    (WINDOW, b"[" * 60_000, "invalid-message"),
    (WINDOW, b"x" * (MAX_MESSAGE_BYTES + 1), "message-too-large"),
    ("shoal/v1/jfk/gw-1/events", b'{"device":"gw-1"}', "invalid-message"),
    ("shoal/v1/lga/gw-1/state", b"{}", "wrong-site"),
]


async def test_bad_messages_are_counted_logged_once_a_kind_and_dropped(
    ingest, connect, window, services, until, count
):
    pid = ingest.pid
    device = await connect("gw-1")
    wrong = json.loads(window(5)) | {"device": "gw-2"}
    newer = json.loads(window(6)) | {"schema": 2}
    hostile = [
        *HOSTILE,
        (WINDOW, json.dumps(wrong).encode(), "wrong-identity"),
        (WINDOW, json.dumps(newer).encode(), "schema-too-new"),
    ]
    for _ in range(3):
        for topic, payload, _code in hostile:
            await device.publish(topic, payload)
    await device.publish(WINDOW, window(1))
    await until(lambda: count() == 1)

    with reading(services.engine) as connection:
        rows = connection.execute(select(schema.rejections)).all()
    found = {(row.channel, row.code): row.count for row in rows}
    expected: dict[tuple[str, str], int] = {}
    for topic, _payload, code in hostile:
        key = (topic.rsplit("/", 1)[1], code)
        expected[key] = expected.get(key, 0) + 3
    assert found == expected
    for channel, code in expected:
        assert ingest.log.count(f"device=gw-1 channel={channel} code={code} ") == 1
    assert ingest.pid == pid
    assert "Traceback" not in ingest.log


async def test_a_device_is_believed_from_its_enrolment_to_its_revocation(
    ingest, broker, connect, window, services, until, count
):
    own = dict.fromkeys((INGEST_ACCOUNT, DIRECTOR_ACCOUNT), "unused-with-certificates")
    await broker.set_accounts({"gw-9": "unused-with-certificates"}, own)
    device = await connect("gw-9")
    topic = WINDOW.replace("gw-1", "gw-9")
    await device.publish(topic, window(1, "gw-9"))
    await until(lambda: count(schema.rejections) == 1)
    row = {"device": "gw-9", "site": "jfk", "public_key": b"k" * 32, "enrolled_ms": 1}
    with writing(services.engine) as connection:
        connection.execute(insert(schema.devices).values(**row))

    await device.publish(topic, window(1, "gw-9"))
    await until(lambda: count() == 1)

    with writing(services.engine) as connection:
        here = schema.devices.c.device == "gw-9"
        connection.execute(update(schema.devices).where(here).values(revoked_ms=1))
    for seq in range(2, 200):  # devices are read anew every second
        await device.publish(topic, window(seq, "gw-9"))
        if _rejected(services, "gw-9") > 1:
            break
        await asyncio.sleep(0.1)
    assert _rejected(services, "gw-9") > 1


def _rejected(services, device):
    with reading(services.engine) as connection:
        query = select(schema.rejections.c.count).where(schema.rejections.c.device == device)
        return connection.scalar(query) or 0


async def test_waits_for_a_database_that_is_busy_and_loses_nothing(
    ingest, connect, window, services, until, count
):
    device = await connect("gw-1")
    with writing(services.engine):
        for seq in range(1, 31):
            await device.publish(WINDOW, window(seq))
        assert count() == 0
    await until(lambda: count() == 30)
    assert "locked" not in ingest.log
