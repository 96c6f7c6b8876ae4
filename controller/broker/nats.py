"""nats-server's configuration (its MQTT gateway), as text made from values.

NATS reads JSON as configuration, so quoting is `json.dumps`'s business. An MQTT topic level
separator '/' is '.' in its permission subjects, and '+' is '*'. The gateway's own subjects
(`$MQTT.>`) are granted to nobody: who may publish there can write into another's queue.

>>> subjects("shoal/v1/+/gw-1/models/+/window")
['shoal.v1.*.gw-1.models.*.window']
>>> subjects("shoal/v1/#")
['shoal.v1.>', 'shoal.v1']
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from controller.broker.accounts import Accounts, publish_topics, read_topics
from controller.broker.settings import BrokerSettings
from shoal.protocol.topics import ROOT

CONF = "nats.conf"
STORE = "jetstream"
MAX_STORE_BYTES = 1024 * 1024 * 1024
LOGIN_SECONDS = 10
"""How long a login may take: on a busy machine a handshake waits for its turn."""
ACK_WAIT_SECONDS = 5
"""After which an unacknowledged message is sent again, also to a session that came back."""


def files(settings: BrokerSettings, accounts: Accounts, probe: tuple[str, str]) -> dict[str, str]:
    """Every file by name; `probe` is the account that may log in and nothing more."""
    return {CONF: json.dumps(conf(settings, accounts, probe), indent=1) + "\n"}


def command(binary: Path, folder: Path) -> list[str]:
    """How to start it in the foreground."""
    return [str(binary), "-c", str(folder / CONF)]


def conf(settings: BrokerSettings, accounts: Accounts, probe: tuple[str, str]) -> dict[str, Any]:
    """The configuration as a JSON value."""
    plain = settings.tls is None
    return {
        "server_name": "shoal",
        "host": "127.0.0.1",
        "port": -1,  # the NATS protocol itself: any free port, and no account may use it
        "max_payload": settings.max_packet_bytes,
        "logtime": True,
        "jetstream": {
            "store_dir": str(settings.folder / STORE),
            "max_mem": 0,
            "max_file": MAX_STORE_BYTES,
            "sync_interval": f"{settings.save_seconds}s",
        },
        "mqtt": {
            "host": settings.host,
            "port": settings.port,
            "max_ack_pending": settings.max_inflight_messages,
            "ack_wait": f"{ACK_WAIT_SECONDS}s",
            **_tls(settings),
        },
        "authorization": {
            "timeout": LOGIN_SECONDS,
            "users": [*_users(accounts, plain), _user(*probe, [], [], plain)],
        },
    }


def subjects(topic: str) -> list[str]:
    """An MQTT topic filter as NATS subjects. '#' includes its parent level, '>' does not."""
    subject = topic.replace("/", ".").replace("+", "*").replace("#", ">")
    return [subject, subject.removesuffix(".>")] if subject.endswith(".>") else [subject]


def _users(accounts: Accounts, plain: bool) -> list[dict[str, Any]]:
    everything = [f"{ROOT}/#"]
    return [
        *(_user(*one, everything, everything, plain) for one in accounts.controllers.items()),
        *(
            _user(name, password, publish_topics(name), read_topics(name), plain)
            for name, password in accounts.devices.items()
        ),
    ]


def _user(
    name: str, password: str, publish: Iterable[str], read: Iterable[str], plain: bool
) -> dict[str, Any]:
    """Without TLS by password; with it the name in the certificate is the user."""
    return {
        "user": name,
        **({"password": password} if plain else {}),
        "allowed_connection_types": ["MQTT"],
        "permissions": {
            "publish": {"allow": [one for topic in publish for one in subjects(topic)]},
            "subscribe": {"allow": [one for topic in read for one in subjects(topic)]},
        },
    }


def _tls(settings: BrokerSettings) -> dict[str, Any]:
    tls = settings.tls
    if tls is None:
        return {}
    found = {
        "cert_file": str(tls.certificate),
        "key_file": str(tls.key),
        "ca_file": str(tls.both_authorities),  # one listener for all; see the operations page
        "verify_and_map": True,
        "min_version": "1.2",
        "timeout": LOGIN_SECONDS,
    }
    return {"tls": found}
