"""A broker that the site runs, in place of one that we start.

Where it is a mosquitto on this machine, `accounts_folder` keeps its permissions and its list of
revoked certificates in step with enrolment; whoever runs it reloads it when they change
(`systemd/shoal-broker.path` does). For any other broker, accounts are the site's own business, and
the folder is None.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from controller.broker import mosquitto
from controller.broker.accounts import Accounts
from controller.broker.errors import BrokerError
from controller.broker.files import OWNER_AND_GROUP, replace_file
from controller.broker.handshake import ACCEPTED, Login, log_in
from controller.broker.identity import Identities, revocation_file

_log = logging.getLogger(__name__)

LOGIN_SECONDS = 5.0
TAKEOVER_SECONDS = (0.0, 1.0, 4.0, 10.0, 30.0)
"""When, after a revocation, a session is taken over: somebody else reloads the broker, and until
then the device comes back."""


class Broker(Protocol):
    """What the controller asks of its broker, ours or the site's."""

    host: str
    port: int
    controller_host: str
    controller_port: int

    @property
    def kind(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def watch(self) -> None: ...
    async def set_accounts(
        self,
        devices: Mapping[str, str],
        controllers: Mapping[str, str],
        revoked: Iterable[str] = (),
    ) -> None: ...
    async def cut_off(self, device: str) -> None: ...


class ExternalBroker:
    """Writes accounts for a broker that somebody else starts, stops and reloads."""

    kind = "external"
    pid = None

    def __init__(
        self,
        host: str,
        port: int,
        accounts_folder: Path | None = None,
        *,
        controller_port: int = 0,
        identities: Identities | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.controller_host, self.controller_port = host, controller_port or port
        self._folder = accounts_folder
        self._identities = identities
        self._takeovers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Only our own takeovers."""
        for task in self._takeovers:
            task.cancel()
        await asyncio.gather(*self._takeovers, return_exceptions=True)

    async def watch(self) -> None:
        """Nothing to watch: its clients reconnect by themselves. Like any other it never ends."""
        await asyncio.Event().wait()

    async def set_accounts(
        self,
        devices: Mapping[str, str],
        controllers: Mapping[str, str],
        revoked: Iterable[str] = (),
    ) -> None:
        """Write the files anew where they are ours to write."""
        accounts = Accounts(dict(devices), dict(controllers))
        if self._folder is not None:
            await asyncio.to_thread(_write, self._folder, accounts, self._identities, revoked)

    async def cut_off(self, device: str) -> None:
        """Take a revoked device's session over, again and again until the broker was reloaded."""
        if self._identities is not None:
            login = Login(device, context=self._identities.stand_in(device))
            task = asyncio.create_task(self._take_over(login), name=f"cut-off-{device}")
            self._takeovers.add(task)
            task.add_done_callback(self._takeovers.discard)

    async def _take_over(self, login: Login) -> None:
        for pause in TAKEOVER_SECONDS:
            await asyncio.sleep(pause)
            if await log_in(self.host, self.port, login, LOGIN_SECONDS) != ACCEPTED:
                _log.warning("event=cut-off-failed device=%s", login.name)


def _write(
    folder: Path, accounts: Accounts, identities: Identities | None, revoked: Iterable[str]
) -> None:
    texts = {mosquitto.ACL: mosquitto.acl(accounts.controllers)}
    if identities is None:
        everyone = [*accounts.controllers.items(), *accounts.devices.items()]
        texts[mosquitto.PASSWORDS] = mosquitto.passwords(everyone)
    else:
        texts |= revocation_file(identities, revoked)
    try:
        for name, text in texts.items():
            replace_file(folder / name, text, OWNER_AND_GROUP)
    except OSError as error:
        raise BrokerError(f"broker accounts in {folder}: {error}") from error
