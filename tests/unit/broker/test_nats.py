"""The text of nats-server's configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.broker import Accounts, BrokerSettings, TlsFiles, nats

PROBE = ("controller_probe", "r" * 32)
ACCOUNTS = Accounts({"gw-1": "p" * 32}, {"controller_ingest": "q" * 32})


def _users(accounts: Accounts = ACCOUNTS) -> dict[str, dict]:
    text = nats.files(BrokerSettings(Path("/data")), accounts, PROBE)[nats.CONF]
    return {user["user"]: user for user in json.loads(text)["authorization"]["users"]}


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("shoal/v1/jfk/gw-1/state", ["shoal.v1.jfk.gw-1.state"]),
        ("shoal/v1/+/gw-1/models/+/window", ["shoal.v1.*.gw-1.models.*.window"]),
        ("shoal/v1/#", ["shoal.v1.>", "shoal.v1"]),
    ],
)
def test_translates_topic_filters(topic, expected):
    assert nats.subjects(topic) == expected


def test_gives_a_device_its_own_channels():
    assert _users()["gw-1"]["permissions"] == {
        "publish": {
            "allow": [
                "shoal.v1.*.gw-1.state",
                "shoal.v1.*.gw-1.health",
                "shoal.v1.*.gw-1.models.*.window",
                "shoal.v1.*.gw-1.models.*.statistics",
                "shoal.v1.*.gw-1.models.*.predictions",
                "shoal.v1.*.gw-1.models.*.captures",
                "shoal.v1.*.gw-1.events",
                "shoal.v1.*.gw-1.replies",
                "shoal.v1.*.gw-1.fetch",
            ]
        },
        "subscribe": {
            "allow": [
                "shoal.v1.*.gw-1.desired",
                "shoal.v1.*.gw-1.acked",
                "shoal.v1.*.gw-1.commands",
                "shoal.v1.*.gw-1.blocks.*",
            ]
        },
    }


def test_gives_the_probe_nothing_and_nobody_the_gateways_own_subjects():
    users = _users()
    assert users["controller_probe"]["permissions"] == {
        "publish": {"allow": []},
        "subscribe": {"allow": []},
    }
    assert "$" not in json.dumps(users)


def test_lets_no_account_use_the_nats_protocol():
    assert all(user["allowed_connection_types"] == ["MQTT"] for user in _users().values())


def test_listens_where_it_is_told_and_keeps_its_store_in_the_folder():
    conf = nats.conf(BrokerSettings(Path("/data"), "127.0.0.1", 1884), ACCOUNTS, PROBE)
    assert (conf["host"], conf["mqtt"]["host"], conf["mqtt"]["port"]) == (
        "127.0.0.1",
        "127.0.0.1",
        1884,
    )
    assert conf["jetstream"]["store_dir"] == "/data/jetstream"
    assert conf["server_name"]
    assert "tls" not in conf["mqtt"]


def test_lists_the_certificate_when_there_is_one():
    tls = TlsFiles.within(Path("/data"))
    conf = nats.conf(BrokerSettings(Path("/data"), tls=tls), ACCOUNTS, PROBE)
    assert conf["mqtt"]["tls"] == {
        "cert_file": "/data/broker.pem",
        "key_file": "/data/broker.key",
        "ca_file": "/data/all-ca.pem",
        "verify_and_map": True,
        "min_version": "1.2",
        "timeout": nats.LOGIN_SECONDS,
    }
    assert not any("password" in user for user in conf["authorization"]["users"])
