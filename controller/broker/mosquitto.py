"""mosquitto's files, as text made from values.

Devices and the controller's processes have a listener each, since a listener believes every
authority it is given: the fleet CA can name devices only, the broker CA only our own processes.

mosquitto on its defaults loses acknowledged messages in a burst: Nagle's algorithm, 20 messages
in flight and a queue of 1,000 together. `docs/how-to/broker.md` explains each line.

>>> password_line("gw-1", "p" * 32).startswith("gw-1:$7$101$")
True
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from controller.broker.accounts import Accounts, publish_topics, read_topics
from controller.broker.settings import BrokerSettings
from shoal.protocol.topics import ROOT

CONF = "mosquitto.conf"
PASSWORDS = "mosquitto.passwords"
ACL = "mosquitto.acl"

PROBE_SOCKET = "probe.sock"
"""In the broker's own folder, which it must be started in."""

_ITERATIONS = 101  # mosquitto_passwd's own default; our passwords are 256-bit secrets
_SALT_BYTES = 12


def files(settings: BrokerSettings, accounts: Accounts, probe: tuple[str, str]) -> dict[str, str]:
    """Every file by name; `probe` is the account that may log in and nothing more."""
    everyone = [probe]
    if settings.tls is None:
        everyone += [*accounts.controllers.items(), *accounts.devices.items()]
    return {
        PASSWORDS: passwords(everyone),
        ACL: acl(accounts.controllers),
        CONF: conf(settings),
    }


def command(binary: Path, folder: Path) -> list[str]:
    """How to start it in the foreground."""
    return [str(binary), "-c", str(folder / CONF)]


def conf(settings: BrokerSettings) -> str:
    """The main configuration."""
    folder = settings.folder
    lines = [
        "# Written by shoal-controller; docs/how-to/broker.md explains each line.",
        *([f"user {settings.run_as}"] if settings.run_as else []),
        "per_listener_settings false",
        "allow_anonymous false",
        *([f"password_file {folder / PASSWORDS}"] if settings.probe or not settings.tls else []),
        f"acl_file {folder / ACL}",
        "set_tcp_nodelay true",
        f"max_inflight_messages {settings.max_inflight_messages}",
        f"max_queued_messages {settings.max_queued_messages}",
        f"max_queued_bytes {settings.max_queued_bytes}",
        f"max_packet_size {settings.max_packet_bytes}",
        "persistence true",
        f"persistence_location {folder}/",
        f"autosave_interval {settings.save_seconds}",
        f"persistent_client_expiration {settings.session_days}d",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
        *_listeners(settings),
    ]
    return "\n".join(lines) + "\n"


def acl(controllers: Iterable[str]) -> str:
    """Access by user: the controller's accounts everything of ours, a device its own subtree."""
    lines = ["# Written by shoal-controller."]
    for name in sorted(controllers):
        lines += [f"user {name}", f"topic readwrite {ROOT}/#"]
    lines += ["", "# %u is the user name: a device's id."]
    lines += [f"pattern write {topic}" for topic in publish_topics("%u")]
    lines += [f"pattern read {topic}" for topic in read_topics("%u")]
    return "\n".join(lines) + "\n"


def passwords(accounts: Iterable[tuple[str, str]]) -> str:
    """The password file."""
    return "".join(password_line(name, password) + "\n" for name, password in accounts)


@lru_cache(maxsize=100_000)
def password_line(name: str, password: str) -> str:
    """One line of the password file: PBKDF2-HMAC-SHA512, format `$7$iterations$salt$hash`.

    The salt follows from name and password, so that equal accounts make an equal file. That is
    right only for machine-made secrets such as ours, which need no protection from guessing.
    """
    salt = hmac.digest(password.encode(), b"broker salt|" + name.encode(), "sha256")[:_SALT_BYTES]
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    encoded = [base64.b64encode(part).decode() for part in (salt, key)]
    return f"{name}:$7${_ITERATIONS}${encoded[0]}${encoded[1]}"


def _listeners(settings: BrokerSettings) -> list[str]:
    devices = ["", f"listener {settings.port} {settings.host}", "use_username_as_clientid true"]
    tls = settings.tls
    if tls is None:
        return devices
    mutual = [
        f"certfile {tls.certificate}",
        f"keyfile {tls.key}",
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
    ]
    return [
        *devices,
        *mutual,
        f"cafile {tls.device_authority}",
        f"crlfile {tls.revocations}",
        "",
        f"listener {settings.controller_port} {settings.controller_host}",
        "use_username_as_clientid true",
        *mutual,
        f"cafile {tls.controller_authority}",
        *(["", f"listener 0 {PROBE_SOCKET}"] if settings.probe else []),
    ]
