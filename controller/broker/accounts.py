"""Who may log in to the broker, and what each may do, before any broker's syntax.

Devices are named as in topics; the controller's own accounts carry an underscore, which no
device name can (`shoal.ids`), so no device can ever enrol as one of them. The client id of a
session is always its user name: one account serves one client.

>>> accounts = Accounts({"gw-1": "p" * 32}, {INGEST_ACCOUNT: "q" * 32})
>>> publish_topics("gw-1")[0], read_topics("gw-1")[0]
('shoal/v1/+/gw-1/state', 'shoal/v1/+/gw-1/desired')
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.broker.errors import BrokerError
from shoal.ids import is_name
from shoal.protocol.topics import DOWN_CHANNELS, MODEL_CHANNELS, ROOT, Channel

INGEST_ACCOUNT = "controller_ingest"
"""Reads what all devices publish, and publishes `acked`."""
DIRECTOR_ACCOUNT = "controller_director"
"""Publishes `desired`."""
PROBE_ACCOUNT = "controller_probe"
"""Logs in to see that the broker is up and has read its files; may read and write nothing."""

_CONTROLLER = re.compile(r"controller_[a-z0-9]{1,40}\Z")
_PASSWORD = re.compile(r"[A-Za-z0-9_.~=-]{16,128}\Z")


@dataclass(frozen=True, slots=True)
class Accounts:
    """Passwords by user name; both maps are checked, so they fit every broker's file format."""

    devices: Mapping[str, str] = field(default_factory=dict)
    controllers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.devices:
            if not is_name(name):
                raise BrokerError(f"broker account {name[:80]!r}: not a device name")
        for name in self.controllers:
            if _CONTROLLER.match(name) is None or name == PROBE_ACCOUNT:
                raise BrokerError(
                    f"broker account {name[:80]!r}: expected controller_<purpose>, in a-z and 0-9"
                )
        for name, password in [*self.devices.items(), *self.controllers.items()]:
            if _PASSWORD.match(password) is None:
                raise BrokerError(
                    f"broker account {name}: expected a password of 16 to 128 characters out of "
                    f"A-Z, a-z, 0-9 and '_.~=-', got {len(password)} characters"
                )


def publish_topics(device: str) -> list[str]:
    """Filters a device may publish to: the up channels of its own subtree, at any site."""
    return [_filter(device, channel) for channel in Channel if channel not in DOWN_CHANNELS]


def read_topics(device: str) -> list[str]:
    """Filters a device may read: the down channels of its own subtree."""
    return [_filter(device, channel) for channel in Channel if channel in DOWN_CHANNELS]


def _filter(device: str, channel: Channel) -> str:
    models = "models/+/" if channel in MODEL_CHANNELS else ""
    deeper = "/+" if channel is Channel.BLOCKS else ""
    return f"{ROOT}/+/{device}/{models}{channel.value}{deeper}"
