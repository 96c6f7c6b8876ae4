"""The text of mosquitto's files."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from controller.broker import Accounts, BrokerSettings, TlsFiles, mosquitto

SETTINGS = BrokerSettings(Path("/data/broker"), port=1884)
PROBE = ("controller_probe", "r" * 32)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(
    "line",
    [
        "allow_anonymous false",
        "use_username_as_clientid true",
        "set_tcp_nodelay true",
        "max_inflight_messages 500",
        "max_queued_messages 1000000",
        "max_packet_size 135168",
        "persistence true",
        "listener 1884 127.0.0.1",
        "password_file /data/broker/mosquitto.passwords",
        "acl_file /data/broker/mosquitto.acl",
    ],
)
def test_never_runs_on_the_defaults(line):
    assert line in _lines(mosquitto.conf(SETTINGS))


def test_bounds_its_queue_in_bytes_too():
    limits = [one for one in _lines(mosquitto.conf(SETTINGS)) if one.startswith("max_queued_bytes")]
    assert limits == [f"max_queued_bytes {512 * 1024 * 1024}"]


@pytest.mark.parametrize(("run_as", "expected"), [(None, []), ("root", ["user root"])])
def test_names_the_user_to_run_as_only_when_there_is_one(run_as, expected):
    text = mosquitto.conf(BrokerSettings(Path("/data"), run_as=run_as))
    assert [line for line in _lines(text) if line.startswith("user ")] == expected


def _listeners(**more) -> dict[str, set[str]]:
    settings = BrokerSettings(Path("/data"), tls=TlsFiles.within(Path("/data")), **more)
    found: dict[str, set[str]] = {"": set()}
    at = ""
    for line in _lines(mosquitto.conf(settings)):
        if line.startswith("listener "):
            at = line
            found[at] = set()
        found[at].add(line)
    return found


MUTUAL = {
    "certfile /data/broker.pem",
    "keyfile /data/broker.key",
    "tls_version tlsv1.2",
    "require_certificate true",
    "use_identity_as_username true",
    "use_username_as_clientid true",
}


def test_devices_and_the_controller_have_a_listener_each_with_an_authority_each():
    found = _listeners()
    devices, own = found["listener 8883 127.0.0.1"], found["listener 8884 127.0.0.1"]
    assert devices > MUTUAL
    assert own > MUTUAL
    assert devices - own - MUTUAL == {
        "listener 8883 127.0.0.1",
        "cafile /data/device-ca.pem",
        "crlfile /data/revoked.pem",
    }
    assert own - devices == {"listener 8884 127.0.0.1", "cafile /data/controller-ca.pem"}


def test_passwords_are_for_the_probe_only_and_for_nobody_without_one():
    assert "listener 0 probe.sock" in _listeners()
    accounts = Accounts({"gw-1": "p" * 32}, {"controller_ingest": "q" * 32})
    settings = BrokerSettings(Path("/data"), tls=TlsFiles.within(Path("/data")))
    text = mosquitto.files(settings, accounts, PROBE)[mosquitto.PASSWORDS]
    assert [line.split(":")[0] for line in text.splitlines()] == ["controller_probe"]
    without = _listeners(probe=False)
    assert not any("password" in line for lines in without.values() for line in lines)
    assert len(without) == 3


def test_gives_a_device_its_own_channels_and_the_controller_all():
    assert _lines(mosquitto.acl(["controller_ingest"])) == [
        "user controller_ingest",
        "topic readwrite shoal/v1/#",
        "pattern write shoal/v1/+/%u/state",
        "pattern write shoal/v1/+/%u/health",
        "pattern write shoal/v1/+/%u/models/+/window",
        "pattern write shoal/v1/+/%u/models/+/statistics",
        "pattern write shoal/v1/+/%u/models/+/predictions",
        "pattern write shoal/v1/+/%u/models/+/captures",
        "pattern write shoal/v1/+/%u/events",
        "pattern write shoal/v1/+/%u/replies",
        "pattern write shoal/v1/+/%u/fetch",
        "pattern read shoal/v1/+/%u/desired",
        "pattern read shoal/v1/+/%u/acked",
        "pattern read shoal/v1/+/%u/commands",
        "pattern read shoal/v1/+/%u/blocks/+",
    ]


def test_writes_a_password_line_that_pbkdf2_confirms():
    name, _, rest = mosquitto.password_line("gw-1", "p" * 32).partition(":")
    _, scheme, iterations, salt, digest = rest.split("$")
    expected = hashlib.pbkdf2_hmac(
        "sha512", b"p" * 32, base64.b64decode(salt), int(iterations), dklen=64
    )
    assert (name, scheme) == ("gw-1", "7")
    assert base64.b64decode(digest) == expected


def test_salts_each_account_of_its_own():
    salts = {mosquitto.password_line(name, "p" * 32).split("$")[3] for name in ("a", "b", "c")}
    assert len(salts) == 3


def test_makes_three_files_with_every_account_and_no_password_in_clear():
    accounts = Accounts({"gw-1": "p" * 32}, {"controller_ingest": "q" * 32})
    files = mosquitto.files(SETTINGS, accounts, PROBE)
    users = [line.split(":")[0] for line in files[mosquitto.PASSWORDS].splitlines()]
    assert users == ["controller_probe", "controller_ingest", "gw-1"]
    assert set(files) == {mosquitto.CONF, mosquitto.PASSWORDS, mosquitto.ACL}
    for secret in ("p" * 32, "q" * 32, "r" * 32):
        assert not any(secret in text for text in files.values())
    assert "controller_probe" not in files[mosquitto.ACL]
