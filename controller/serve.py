"""The running controller: broker, ingest, director, engine and web server, in one place.

Order of leaving: web, then ingest (it commits what it has), then the broker. Nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from controller.api.stream import Announcer
from controller.app import build_app, build_services
from controller.blocks import BlockServer, open_published
from controller.broker import (
    DIRECTOR_ACCOUNT,
    INGEST_ACCOUNT,
    Broker,
    EmbeddedBroker,
    ExternalBroker,
    choose_kind,
)
from controller.child import ChildProcess
from controller.config import Settings
from controller.director import Director, DirectorLink
from controller.drift.monitor import Monitor
from controller.drift.notify import Notifier
from controller.enrolment import accounts
from controller.repository.resign import CHECK_SECONDS, Resigner
from controller.rollouts.engine import Engine
from controller.services import Services
from controller.state_files import write_private
from controller.summaries import Summaries
from shoal.errors import ShoalError
from shoal.protocol.topics import fetch_filter

log = logging.getLogger("controller")

ENGINE_SECONDS = 0.4
IDLE_SECONDS = 2.0
ENGINE_SHARE = 2
"""The engine rests at least so many times as long as a tick took."""
SUMMARY_SECONDS = 2.0
REMIND_SECONDS = 30.0
DRIFT_SECONDS = 5.0
NOTIFY_SECONDS = 2.0
RETRY_SECONDS = 2.0
GRACE_SECONDS = 3


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    services = build_services(settings)
    listener = _listen(settings)
    services.web_port = listener.getsockname()[1]
    services.broker = make_broker(services)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await services.broker.set_accounts(*accounts(services))
    await services.broker.start()
    try:
        await _run(services, services.broker, listener, stop)
    finally:
        settings.running_file.unlink(missing_ok=True)
        await services.broker.stop()
        services.engine.dispose()
        log.info("event=stopped")


def make_broker(services: Services) -> Broker:
    """The broker that the configuration asks for, not started, with the logins of our own."""
    settings, config = services.settings, services.settings.broker
    identities = services.identities if config.tls else None
    if identities is not None:
        for account in (INGEST_ACCOUNT, DIRECTOR_ACCOUNT):
            identities.make_login(account)
    if config.mode == "external":
        folder = settings.data_dir / config.accounts_folder if config.accounts_folder else None
        return ExternalBroker(
            config.host,
            config.port,
            folder,
            controller_port=config.controller_port,
            identities=identities,
        )
    return EmbeddedBroker(
        choose_kind(config.mode),
        settings.data_dir / "broker",
        config.host,
        config.port,
        controller_port=config.controller_port,
        names=[config.public_host] if config.public_host else [],
        identities=identities,
    )


async def _run(
    services: Services, broker: Broker, listener: socket.socket, stop: asyncio.Event
) -> None:
    settings = services.settings
    host, port = broker.controller_host, broker.controller_port
    arguments = ["--config", str(settings.path), "--host", host, "--port", str(port)]
    ingest = ChildProcess("ingest", ["controller.ingest", *arguments])
    link = DirectorLink(host, port, settings)
    director = Director(services.engine, services.director, link)
    blocks = BlockServer(partial(open_published, services), link.send)
    link.listen(fetch_filter(), blocks.take)
    announcer = Announcer(services)
    services.announcer = announcer
    server = _Server(_web_config(services))
    await ingest.start()
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(broker.watch(), name="broker"),
        asyncio.create_task(ingest.watch(), name="ingest"),
        asyncio.create_task(announcer.run(), name="announcer"),
        asyncio.create_task(_direct(services, director), name="director"),
        asyncio.create_task(_remind(director), name="reminder"),
        asyncio.create_task(_roll_out(services), name="engine"),
        asyncio.create_task(_summarise(services), name="summaries"),
        asyncio.create_task(_watch_drift(services), name="drift"),
        asyncio.create_task(_notify(services), name="alerts"),
        asyncio.create_task(_resign(services), name="repository"),
        asyncio.create_task(_observe(services, broker, ingest, director), name="parts"),
    ]
    web = asyncio.create_task(server.serve(sockets=[listener]), name="web")
    stopped: asyncio.Task[bool] = asyncio.create_task(stop.wait(), name="stop")
    waited = {web, stopped, *tasks}
    try:
        await _say_running(services, broker, ingest, server)
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()  # none of them ends by itself
    finally:
        services.stopping.set()
        server.should_exit = True
        await web
        for task in [*tasks, stopped]:
            task.cancel()
        await asyncio.gather(*tasks, stopped, return_exceptions=True)
        await ingest.stop()
        await asyncio.to_thread(director.close)
        await asyncio.to_thread(blocks.close)


def _listen(settings: Settings) -> socket.socket:
    """Take the web port before anything is started, so that a clash is one clear sentence."""
    web = settings.web
    listener = socket.socket(socket.AF_INET6 if ":" in web.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((web.host, web.port))
    except OSError as error:
        listener.close()
        raise ShoalError(
            f"web address {web.host}:{web.port}: {error.strerror}", code="address-in-use"
        ) from error
    return listener


def _web_config(services: Services) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(services),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )


class _Server(uvicorn.Server):
    """Leaves the signals to us, and says when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answers.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _say_running(
    services: Services, broker: Broker, ingest: ChildProcess, server: _Server
) -> None:
    """Write where everything is, once it answers."""
    await server.answers.wait()
    found = {
        "url": services.public_url(),
        "pid": os.getpid(),
        "broker": {
            "kind": broker.kind,
            "host": broker.host,
            "port": broker.port,
            "controller_port": broker.controller_port,
            "tls": services.settings.broker.tls,
            "pid": broker.pid,
        },
        "ingest_pid": ingest.pid,
    }
    write_private(services.settings.running_file, json.dumps(found, indent=1).encode())
    log.info("event=serving url=%s broker=%s", found["url"], broker.kind)


async def _patiently(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Repeat `work` for ever; a failure is logged and tried again."""
    while True:
        try:
            await work()
        except Exception as error:  # a bug in one part must not end the others
            log.exception("event=failed part=%s error=%r", name, str(error))
            await asyncio.sleep(RETRY_SECONDS)


async def _direct(services: Services, director: Director) -> None:
    async def work() -> None:
        more = await asyncio.to_thread(director.work)
        if not more:
            await services.desired_changed.wait(IDLE_SECONDS)

    await _patiently("director", work)


async def _remind(director: Director) -> None:
    async def work() -> None:
        await asyncio.sleep(REMIND_SECONDS)
        await asyncio.to_thread(director.remind)

    await _patiently("reminder", work)


async def _roll_out(services: Services) -> None:
    engine = Engine(services)

    async def work() -> None:
        began = time.monotonic()
        with services.metrics.tick_seconds.time():
            active = await asyncio.to_thread(engine.tick)
        least = ENGINE_SHARE * (
            time.monotonic() - began
        )  # a large rollout takes no core for itself
        await services.rollouts_changed.wait(max(least, ENGINE_SECONDS if active else IDLE_SECONDS))

    await _patiently("engine", work)


async def _summarise(services: Services) -> None:
    summaries = Summaries(services.engine, services.artifacts)

    async def work() -> None:
        await asyncio.to_thread(summaries.refresh)
        await asyncio.sleep(SUMMARY_SECONDS)

    await _patiently("summaries", work)


async def _watch_drift(services: Services) -> None:
    monitor = Monitor(services.engine, services.artifacts, services.settings.drift.rule())
    services.drift_monitor = monitor

    async def work() -> None:
        if not await asyncio.to_thread(monitor.work, services.now_ms()):
            await asyncio.sleep(DRIFT_SECONDS)

    try:
        await _patiently("drift", work)
    finally:
        await asyncio.to_thread(monitor.store, services.now_ms())


async def _notify(services: Services) -> None:
    notifier = Notifier(services.engine, services.settings.alerts)

    async def work() -> None:
        await asyncio.to_thread(notifier.work, services.now_ms())
        await asyncio.sleep(NOTIFY_SECONDS)

    await _patiently("alerts", work)


async def _resign(services: Services) -> None:
    resigner = Resigner(services.engine, services.keyring)

    async def work() -> None:
        await asyncio.to_thread(resigner.work)
        await asyncio.sleep(CHECK_SECONDS)

    await _patiently("repository", work)


async def _observe(
    services: Services, broker: Broker, ingest: ChildProcess, director: Director
) -> None:
    while True:
        services.parts["ingest"] = ingest.pid is not None
        services.parts["director"] = director.connected
        if broker.kind != "external":
            services.parts["broker"] = broker.pid is not None
        await asyncio.sleep(0.5)
