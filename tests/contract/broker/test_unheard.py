"""What a broker confirms and does not deliver is not taken as delivered (row 26)."""

from __future__ import annotations

import asyncio

import pytest

from agent.access import BrokerAccess
from agent.config import OutboxLimits
from agent.link import Link
from agent.prepare import prepare_state
from agent.spool import Spool
from controller.broker import INGEST_ACCOUNT
from shoal.ids import DeviceId, SiteId
from shoal.protocol.messages import Acked, Event, decode, encode
from shoal.protocol.topics import Channel

pytestmark = pytest.mark.contract


@pytest.fixture
async def make_link(broker, hold, tmp_path):
    """`make_link("gw-2", holds="gw-1")`: an agent's own link and outbox, and whose certificate."""
    tasks, spools = [], []

    async def make(device, holds):
        prepare_state(tmp_path / device)
        spool = Spool(tmp_path / device / "outbox.sqlite", "boot", OutboxLimits())
        spools.append(spool)
        access = BrokerAccess(
            host=broker.host, port=broker.port, device=holds, authorities="", not_before_ms=0,
            not_after_ms=0, fleet_authorities="",
        )  # fmt: skip
        context = hold(holds).context
        link = Link(
            SiteId("jfk"), DeviceId(device), spool, lambda: (access, context), lambda: b"{}",
            lambda payload: None, lambda payload: None, lambda topic, payload: None, lambda: None,
        )  # fmt: skip
        tasks.append(asyncio.create_task(link.run()))
        return link, spool

    yield make
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for spool in spools:
        spool.close()


def _event(device):
    return Event(
        device=device, site="jfk", boot_id="boot", seq=0, ts_ms=1, kind="agent", code="hello"
    )


async def _eventually(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - paho's thread changes what is looked at
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("broker_kind", ["mosquitto"])
async def test_a_forbidden_message_that_the_broker_confirms_stays_in_the_outbox(make_link, connect):
    ingest = await connect(INGEST_ACCOUNT)
    assert await ingest.subscribe("shoal/v1/+/+/events")
    link, spool = await make_link("gw-2", holds="gw-1")  # may not publish as gw-2
    spool.put(Channel.EVENTS, _event("gw-2"), 1)

    confirmed = asyncio.Event()
    published = link._published
    link._published = lambda mid: (published(mid), confirmed.set())
    link.wake()
    await asyncio.wait_for(confirmed.wait(), 20)  # PUBACK, as for any other

    with pytest.raises(TimeoutError):
        await ingest.receive(0.5)
    assert spool.rows == 1


async def test_only_the_controllers_word_takes_a_message_out_of_the_outbox(make_link, connect):
    ingest = await connect(INGEST_ACCOUNT)
    assert await ingest.subscribe("shoal/v1/+/+/events")
    link, spool = await make_link("gw-1", holds="gw-1")
    spool.put(Channel.EVENTS, _event("gw-1"), 1)
    link.wake()
    message = decode(Channel.EVENTS, (await ingest.receive()).payload)
    assert spool.rows == 1

    acked = Acked(device="gw-1", boot_id="boot", ranges=[(message.seq, message.seq)])
    forger = await connect("gw-3")
    for _ in range(2):
        forger.client.publish("shoal/v1/jfk/gw-1/acked", encode(acked), qos=1)
    await forger.publish("shoal/v1/jfk/gw-3/state", b"allowed")
    assert spool.rows == 1

    await ingest.publish("shoal/v1/jfk/gw-1/acked", encode(acked), retain=True)
    await _eventually(lambda: spool.rows == 0)
