"""What an enrolled device sends wrongly is counted, logged once a kind, and dropped."""

from __future__ import annotations

import json

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.access import broker_context, load_broker
from shoal.protocol import MAX_MESSAGE_BYTES, SCHEMA
from shoal.protocol.messages import UP_TYPES
from shoal.protocol.topics import MODEL_CHANNELS, Channel

DEVICE = "gw-liar"
ROOT = f"shoal/v1/plant/{DEVICE}"
TIMES = 3
CHANNELS = list(UP_TYPES)


def _topic(channel: Channel) -> str:
    return (
        f"{ROOT}/models/pump/{channel.value}"
        if channel in MODEL_CHANNELS
        else (f"{ROOT}/{channel.value}")
    )


def _event(seq: int, **changes) -> bytes:
    document = {
        "device": DEVICE,
        "site": "plant",
        "boot_id": "boot",
        "seq": seq,
        "ts_ms": 1,
        "kind": "agent",
        "code": "hello",
        **changes,
    }
    return json.dumps(document).encode()


def _wrong_messages() -> list[tuple[str, str, str, bytes]]:
    """(channel, code, topic, payload) of each kind; sequence numbers 1 to 3 of one boot."""
    events = _topic(Channel.EVENTS)
    return [
        *(
            (channel.value, "invalid-message", _topic(channel), payload)
            for channel in CHANNELS
            for payload in (b"not json", b'{"device": 1}', b"\xff\xfe")
        ),
        ("events", "wrong-identity", events, _event(1, device="gw-other")),
        ("events", "wrong-identity", events, _event(1, site="elsewhere")),
        ("events", "schema-too-new", events, _event(2, schema=SCHEMA + 1)),
        ("events", "message-too-large", events, b" " * (MAX_MESSAGE_BYTES + 1)),
        ("events", "wrong-site", f"shoal/v1/elsewhere/{DEVICE}/events", _event(3)),
        ("", "invalid-input", f"{ROOT}/models/Bad_Name/window", _event(3)),
    ]


@pytest.fixture
def publish(fleet, player):
    """Publishes as the enrolled device, whose agent does not run."""
    device = player(DEVICE)
    device.enrol({})
    state = fleet.agents[DEVICE].folder / "state"
    access = load_broker(state)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=DEVICE, protocol=mqtt.MQTTv311)
    client.tls_set_context(broker_context(state, access))
    client.connect(access.host, access.port)
    client.loop_start()

    def send(topic: str, payload: bytes) -> None:
        info = client.publish(topic, payload, qos=1)
        info.wait_for_publish(30.0)
        assert info.is_published(), topic

    yield send
    client.disconnect()
    client.loop_stop()


def test_invalid_messages_of_every_kind_are_counted_told_once_and_dropped(fleet, player, publish):
    wrong = _wrong_messages()
    expected: dict[tuple[str, str], int] = {}
    for _ in range(TIMES):
        for channel, code, topic, payload in wrong:
            publish(topic, payload)
            expected[channel, code] = expected.get((channel, code), 0) + 1
    publish(_topic(Channel.EVENTS), _event(4))

    def arrived() -> bool:
        return any(one["code"] == "hello" for one in fleet.client.device_events(DEVICE))

    fleet.wait_for(lambda: arrived() or None, 60.0, "the right message after the wrong ones")
    found = {
        (one["channel"], one["code"]): one["count"]
        for one in fleet.client.rejections()
        if one["device"] in (DEVICE, "")
    }
    assert found == expected
    assert len(fleet.client.device_events(DEVICE)) == 1
    log = (fleet.logs / "controller.log").read_text(encoding="utf-8")
    for channel, code in expected:
        name = DEVICE if channel else ""
        line = f"event=rejected device={name} channel={channel} code={code} "
        assert log.count(line) == 1, (channel, code)
    assert fleet.client.health()["status"] == "ok"
