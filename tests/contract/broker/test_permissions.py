"""A device reaches its own subtree only, and only in its own direction."""

from __future__ import annotations

import pytest

from controller.broker import DIRECTOR_ACCOUNT, INGEST_ACCOUNT

pytestmark = pytest.mark.contract

FORBIDDEN_PUBLISH = [
    "shoal/v1/jfk/gw-1/state",
    "shoal/v1/jfk/gw-1/desired",
    "shoal/v1/jfk/gw-1/models/weather/window",
    "shoal/v1/jfk/gw-2/desired",
    "shoal/v1/jfk/gw-2/acked",
    "shoal/v1/jfk/gw-2/unknown",
    "shoal/v1/jfk/gw-2/models/a/b/window",
    "shoal/v1/gw-2/state",
    "$MQTT/msgs/shoal/v1/jfk/gw-1/desired",
    "$MQTT/sub/any",
]
FORBIDDEN_READ = [
    "#",
    "shoal/#",
    "shoal/v1/+/+/desired",
    "shoal/v1/+/gw-1/#",
    "shoal/v1/jfk/gw-1/desired",
    "shoal/v1/jfk/gw-1/acked",
    "shoal/v1/jfk/gw-1/state",
]


async def test_drops_what_a_device_publishes_outside_its_own_channels(connect):
    ingest, victim = await connect(INGEST_ACCOUNT), await connect("gw-1")
    assert await ingest.subscribe("shoal/v1/#")
    assert await victim.subscribe("shoal/v1/+/gw-1/desired")
    attacker = await connect("gw-2")

    for topic in FORBIDDEN_PUBLISH:
        attacker.client.publish(topic, b"forged", qos=1, retain=True)
    await attacker.publish("shoal/v1/jfk/gw-2/state", b"allowed")

    assert (await ingest.receive()).payload == b"allowed"
    assert victim.messages.empty()
    late = await connect(DIRECTOR_ACCOUNT)
    assert await late.subscribe("shoal/v1/#")
    with pytest.raises(TimeoutError):
        await late.receive(0.3)


@pytest.mark.parametrize("topic", FORBIDDEN_READ)
async def test_shows_a_device_nothing_of_another(connect, topic):
    attacker, director = await connect("gw-2"), await connect(DIRECTOR_ACCOUNT)
    await attacker.subscribe(topic)
    assert await attacker.subscribe("shoal/v1/+/gw-2/desired")

    for channel in ("desired", "acked", "state"):
        await director.publish(f"shoal/v1/jfk/gw-1/{channel}", b"secret", retain=True)
    await director.publish("shoal/v1/jfk/gw-2/desired", b"own")

    assert (await attacker.receive()).payload == b"own"


async def test_never_publishes_a_last_will_on_behalf_of_another(connect):
    ingest = await connect(INGEST_ACCOUNT)
    assert await ingest.subscribe("shoal/v1/#")
    try:
        attacker = await connect("gw-2", will=("shoal/v1/jfk/gw-1/state", b"forged"))
        attacker.cut()
        await attacker.disconnected()
    except PermissionError:
        pass  # mosquitto refuses such a login

    with pytest.raises(TimeoutError):
        await ingest.receive(0.5)


@pytest.mark.parametrize("broker_kind", ["mosquitto"])
async def test_mosquitto_makes_the_user_name_the_client_id(connect):
    """nats-server has no such rule; `docs/how-to/broker.md` says what follows from that."""
    owner = await connect("gw-1", clean=False)
    await owner.subscribe("shoal/v1/+/gw-1/desired")

    thief = await connect("gw-2", client_id="gw-1", clean=False)
    director = await connect(DIRECTOR_ACCOUNT)
    await director.publish("shoal/v1/jfk/gw-1/desired", b"mine")

    assert (await owner.receive()).payload == b"mine"
    assert owner.disconnections.empty()
    assert thief.messages.empty()


@pytest.mark.parametrize("broker_kind", ["nats"])
async def test_nats_shows_a_session_to_nobody_but_its_user(connect):
    owner = await connect("gw-1", clean=False)
    assert await owner.subscribe("shoal/v1/+/gw-1/desired")
    owner.close()
    director = await connect(DIRECTOR_ACCOUNT)
    await director.publish("shoal/v1/jfk/gw-1/desired", b"queued")

    thief = await connect("gw-2", client_id="gw-1", clean=False)
    await director.publish("shoal/v1/jfk/gw-1/desired", b"live")

    with pytest.raises(TimeoutError):
        await thief.receive(0.5)
