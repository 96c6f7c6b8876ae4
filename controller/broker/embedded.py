"""The broker that a controller on one machine starts as its child.

    broker = EmbeddedBroker(choose_kind("auto"), folder, "127.0.0.1", 8883, identities=identities)
    await broker.set_accounts(devices, controllers, revoked)   # before start: only remembered
    await broker.start()                                       # returns when logins work
    ...
    await broker.set_accounts(devices, controllers, revoked)   # returns when it has taken them
    await broker.cut_off("gw-7")                               # ends a session that is still open
    await broker.stop()

`watch` is a task for the controller's task group: it starts the broker again when it dies.
Accounts that are unchanged keep their connections through `set_accounts`. nats-server disconnects
those that are gone; mosquitto keeps an open session whatever its certificate has become, so
`cut_off` takes it over: whoever logs in with the same client id ends the older session.
Without `identities` it speaks plainly and asks for passwords, which only load tests do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from controller.broker.accounts import PROBE_ACCOUNT, Accounts
from controller.broker.errors import BrokerError
from controller.broker.files import OWNER_ONLY, replace_file
from controller.broker.handshake import ACCEPTED, Login, log_in, log_in_locally
from controller.broker.identity import Identities, revocation_file, server_files
from controller.broker.kinds import KINDS, locate
from controller.broker.mosquitto import PROBE_SOCKET
from controller.broker.process import Child, limit_log, log_size, log_tail, start_child
from controller.broker.settings import BrokerSettings, TlsFiles

_log = logging.getLogger(__name__)

START_SECONDS = 20.0
RELOAD_SECONDS = 20.0
STOP_SECONDS = 10.0
LOGIN_SECONDS = 5.0
WATCH_SECONDS = 60.0
POLL_SECONDS = 0.02
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
LOG_LINES = 6


class EmbeddedBroker:
    """One broker process, its folder and its accounts. `port` 0 takes any free one."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        controller_port: int = 0,
        names: Iterable[str] = (),
        identities: Identities | None = None,
    ) -> None:
        """`names`: under which devices reach it, beside `host`."""
        self._program = locate(kind)
        self._kind = KINDS[kind]
        self._folder = folder.resolve()
        self._log_file = self._folder / "broker.log"
        self.host = host
        self.port = port or free_port(host)
        self._names = [host, *names]
        self._identities = identities
        own = identities is not None and self._kind.own_listener
        self.controller_host = "127.0.0.1" if own else host
        """Where our own processes connect."""
        self.controller_port = (controller_port or free_port()) if own else self.port
        self._accounts = Accounts()
        self._revoked: tuple[str, ...] = ()
        self._probe = Login(PROBE_ACCOUNT)
        self._child: Child | None = None
        self._lock = asyncio.Lock()

    @property
    def kind(self) -> str:
        """mosquitto or nats."""
        return self._kind.name

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self._child and self._child.running else None

    async def start(self) -> None:
        """Start the process and return when it accepts logins; raise `BrokerError`."""
        async with self._lock:
            await self._start()

    async def stop(self) -> None:
        """End the process; what it must keep is on disk afterwards. Safe to repeat."""
        async with self._lock:
            child, self._child = self._child, None
            if child is not None:
                await child.stop(STOP_SECONDS)

    async def set_accounts(
        self,
        devices: Mapping[str, str],
        controllers: Mapping[str, str],
        revoked: Iterable[str] = (),
    ) -> None:
        """Let exactly these log in, now if the broker runs.

        Passwords by user name; with identities they are not looked at. `revoked` are the serial
        numbers of certificates taken back.
        """
        accounts = Accounts(dict(devices), dict(controllers))
        async with self._lock:
            same = self._is_same(accounts, tuple(revoked))
            self._accounts, self._revoked = accounts, tuple(revoked)
            if not same and self._child is not None and self._child.running:
                self._write_files()
                before = log_size(self._log_file)
                self._child.send(signal.SIGHUP)
                await self._answers(RELOAD_SECONDS, "did not take its new accounts", before)

    async def cut_off(self, device: str) -> None:
        """End the session of a device whose certificates were taken back, if it has one."""
        if self._identities is None or not self._kind.keeps_sessions or self.pid is None:
            return
        login = Login(device, context=self._identities.stand_in(device))
        if await log_in(self.host, self.port, login, LOGIN_SECONDS) != ACCEPTED:
            raise BrokerError(f"device {device}: its session at the broker could not be ended")

    def _is_same(self, accounts: Accounts, revoked: tuple[str, ...]) -> bool:
        """Whether the broker's files would say what they say already."""
        if self._identities is None or self._kind.lists_devices:
            return False
        return revoked == self._revoked and accounts.controllers == self._accounts.controllers

    async def watch(self) -> None:
        """Start the broker again whenever it dies, until it is stopped or we are cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while (child := self._child) is not None:
            if not await child.wait(WATCH_SECONDS):
                limit_log(self._log_file)
                pause = FIRST_PAUSE_SECONDS
            elif self._child is child:
                _log.error(
                    "event=broker-died kind=%s exit_code=%s restart_seconds=%.1f log=%r",
                    self.kind, child.exit_code, pause, log_tail(self._log_file, LOG_LINES),
                )  # fmt: skip
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                await self._restart(child)

    async def _restart(self, dead: Child) -> None:
        async with self._lock:
            if self._child is not dead:
                return
            try:
                await self._start()
            except BrokerError as error:
                self._child = dead
                _log.error("event=broker-restart-failed %s", error)

    async def _start(self) -> None:
        if self._child is not None and self._child.running:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        limit_log(self._log_file)
        self._write_files()
        before = log_size(self._log_file)
        self._child = start_child(self._kind.command(self._program, self._folder), self._log_file)
        try:
            await self._answers(START_SECONDS, "did not start", before)
        except BaseException:
            child, self._child = self._child, None
            await child.stop(STOP_SECONDS)
            raise

    async def _answers(self, seconds: float, failure: str, log_start: int) -> None:
        """Wait until the probe's new password works, which proves that the files were read."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._child is None or not self._child.running:
                break
            if await self._probe_logs_in():
                return
            await asyncio.sleep(POLL_SECONDS)
        code = self._child.exit_code if self._child else None
        state = f"still running after {seconds:.0f} s" if code is None else f"exit code {code}"
        raise BrokerError(
            f"broker {self.kind} on {self.host}:{self.port} {failure}: {state}; it said: "
            f"{log_tail(self._log_file, LOG_LINES, log_start) or 'nothing'}"
        )

    async def _probe_logs_in(self) -> bool:
        if self._identities is not None and self._probe.password:
            socket = self._folder / PROBE_SOCKET
            return await log_in_locally(socket, self._probe, LOGIN_SECONDS) == ACCEPTED
        return await log_in(self.host, self.port, self._probe, LOGIN_SECONDS) == ACCEPTED

    def _write_files(self) -> None:
        """Also a probe that nobody knew before: when it may log in, the files were read."""
        settings = BrokerSettings(
            self._folder,
            self.host,
            self.port,
            self.controller_port,
            # Started as root it would become the user mosquitto, who cannot read our files.
            run_as="root" if os.geteuid() == 0 else None,
            tls=TlsFiles.within(self._folder) if self._identities else None,
        )
        texts: dict[str, str] = {}
        self._probe = Login(PROBE_ACCOUNT, secrets.token_urlsafe(24))
        if self._identities is not None:
            if self._child is None or not self._child.running:
                texts |= server_files(self._identities, self._names)
            texts |= revocation_file(self._identities, self._revoked)
            if self._kind.lists_devices:
                name = PROBE_ACCOUNT + secrets.token_hex(8)
                self._probe = Login(name, context=self._identities.login(name))
        probe = (self._probe.name, self._probe.password)
        texts |= self._kind.files(settings, self._accounts, probe)
        for name, text in texts.items():
            replace_file(self._folder / name, text, OWNER_ONLY)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
