"""A broker that the site runs, in place of one that we start.

Where it is a mosquitto on this machine, `accounts_folder` keeps its password and permission files
in step with enrolment; whoever runs it reloads it when they change (`systemd/shoal-broker.path`
does). For any other broker, accounts are the site's own business, and the folder is None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from controller.broker import mosquitto
from controller.broker.accounts import Accounts
from controller.broker.errors import BrokerError
from controller.broker.files import OWNER_AND_GROUP, replace_file


class Broker(Protocol):
    """What the controller asks of its broker, ours or the site's."""

    host: str
    port: int

    @property
    def kind(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def watch(self) -> None: ...
    async def set_accounts(
        self, devices: Mapping[str, str], controllers: Mapping[str, str]
    ) -> None: ...


class ExternalBroker:
    """Writes accounts for a broker that somebody else starts, stops and reloads."""

    kind = "external"
    pid = None

    def __init__(self, host: str, port: int, accounts_folder: Path | None = None) -> None:
        self.host = host
        self.port = port
        self._folder = accounts_folder

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def watch(self) -> None:
        """Nothing to watch: its clients reconnect by themselves. Like any other it never ends."""
        await asyncio.Event().wait()

    async def set_accounts(
        self, devices: Mapping[str, str], controllers: Mapping[str, str]
    ) -> None:
        """Write both files anew where they are ours to write."""
        accounts = Accounts(dict(devices), dict(controllers))
        if self._folder is not None:
            await asyncio.to_thread(_write, self._folder, accounts)


def _write(folder: Path, accounts: Accounts) -> None:
    everyone = [*accounts.controllers.items(), *accounts.devices.items()]
    texts = {
        mosquitto.ACL: mosquitto.acl(accounts.controllers),
        mosquitto.PASSWORDS: mosquitto.passwords(everyone),
    }
    try:
        for name, text in texts.items():
            replace_file(folder / name, text, OWNER_AND_GROUP)
    except OSError as error:
        raise BrokerError(f"broker accounts in {folder}: {error}") from error
