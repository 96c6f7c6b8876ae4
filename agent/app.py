"""The resident agent: builds every object, runs every task, in one place.

It imports neither numpy nor cryptography nor a runtime; those live in workers and updaters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import Callable

from agent.access import BrokerAccess, broker_context, load_broker
from agent.actions import ActionContext, build_action
from agent.blocks import Blocks
from agent.capture import CaptureStore, Recorder
from agent.clock import Clock
from agent.clock_watch import watch_clock
from agent.commands import CommandDesk
from agent.config import AgentConfig, ModelBinding
from agent.desired import DesiredFollower
from agent.garbage import collect_daily
from agent.health import HealthReport
from agent.introspect import device_facts
from agent.link import Link
from agent.live_options import LiveOptions
from agent.local import open_local
from agent.lock import hold
from agent.logring import LogRing
from agent.manager import ModelManager
from agent.notify import notify
from agent.orders import Known, Orders
from agent.pipeline import BUFFER_ROWS, AgeLimits, WorkerPipeline
from agent.ports import Action, Follower, Source
from agent.refusals import Refusals
from agent.renew_watch import Renewal
from agent.reporter import Identity, Reporter
from agent.safemode import SafeMode
from agent.sources import SourceContext, Tally, open_source
from agent.spool import Spool
from agent.state_files import open_database
from agent.status import StateReport
from agent.store import StateStore
from agent.updates import Updates
from agent.windows import Windows
from agent.workers.pool import ForkserverPool, PoolOptions
from agent.workers.quarantine import Quarantine
from shoal.errors import ShoalError
from shoal.maintenance import parse_window

log = logging.getLogger("agent")

SOURCE_RETRY_SECONDS = 10.0


class Agent:
    """One device's service."""

    def __init__(self, config: AgentConfig, logs: LogRing) -> None:
        self._config = config
        self._managers: dict[str, ModelManager] = {}
        self._pipelines: dict[str, WorkerPipeline] = {}
        self._recorders: dict[str, Recorder] = {}
        self._actions: list[Action] = []
        self._followers: list[Follower] = []
        self._state_due = asyncio.Event()
        self._facts = device_facts(config.profile, config.state_dir, config.sensors)
        self._build_core(Identity(config.device, config.site, config.profile, self._facts))
        self._build_reports()
        self._build_link(logs)
        for binding in config.models:
            self._bind(binding)
        for follower in self._followers:
            self._pipelines[follower.follows].add_action(follower)

    def _build_core(self, identity: Identity) -> None:
        """What everything else stands on: stores, outbox, reporter, pool."""
        config = self._config
        self._store = StateStore(open_database(config.state_db))
        self._clock = Clock(self._store.clock())
        self._outbox = Spool(config.outbox_db, identity.boot_id, config.outbox, self._state_due.set)
        self._reporter = Reporter(identity, self._outbox, self._clock, lambda: self._link.wake())
        self._captures = CaptureStore(
            config.state_dir / "captures.sqlite", config.capture_max_bytes
        )
        self._blocks = Blocks(lambda request: self._link.fetch(request))
        self._updates = Updates(config.state_dir, config.device, config.updates, self._blocks)
        self._safe = SafeMode(self._store)
        self._options = LiveOptions(config)
        self._pool = ForkserverPool(
            PoolOptions(
                num_threads=config.num_threads,
                memory_mb=config.worker_memory_mb,
                quarantine=Quarantine(config.state_dir / "quarantine"),
            )
        )
        self._local = open_local(config.http)

    def _build_reports(self) -> None:
        self._windows = Windows(self._options, self._managers, self._pipelines, self._recorders)
        self._health = HealthReport(
            self._reporter, self._pool, self._options, lambda: self._link.connects
        )
        self._state = StateReport(
            self._reporter,
            self._outbox,
            self._config.outbox_db.name,
            self._managers,
            self._store.desired_sequence,
            self._state_due,
        )

    def _build_link(self, logs: LogRing) -> None:
        """The link, and who takes what comes over it."""
        config = self._config
        self._desired = DesiredFollower(
            self._updates,
            self._store,
            self._reporter,
            self._safe,
            self._options,
            self._managers,
            self._state_due.set,
        )
        known = Known(
            self._facts,
            self._managers,
            self._outbox,
            self._captures,
            self._clock,
            lambda: self._link,
            self._state.status,
            self._store.desired_sequence,
        )
        orders = Orders(config, logs, known, self._reporter, self._pool)
        self._desk = CommandDesk(self._updates, self._store, self._reporter, orders.handlers())
        self._link = Link(
            config.site,
            config.device,
            self._outbox,
            self._read_access,
            self._reporter.last_will,
            self._desired.take,
            self._desk.take,
            self._blocks.arrived,
            self._state_due.set,
        )

        self._renewal = Renewal(
            config.path, config.state_dir, self._clock, self._reporter, self._link.reconnect
        )

    def _read_access(self) -> tuple[BrokerAccess, ssl.SSLContext]:
        access = load_broker(self._config.state_dir)
        check_time = not self._clock.behind
        if not check_time:
            log.warning("clock is behind what was known before; dates of certificates are not read")
        return access, broker_context(self._config.state_dir, access, check_time=check_time)

    async def run(self) -> None:
        """Run until cancelled, then leave in order."""
        self._reporter.event("agent", "started", "agent started")
        self._desired.resume()
        sequence = self._store.desired_sequence()
        log.info("started device=%s desired_sequence=%d", self._config.device, sequence)
        try:
            async with asyncio.TaskGroup() as group:
                self._start(group)
                notify("READY=1")
        except asyncio.CancelledError:  # asked to end: not a crash
            self._safe.clear()
            raise
        finally:
            notify("STOPPING=1")
            await self._leave()

    def _start(self, group: asyncio.TaskGroup) -> None:
        """Start every task."""
        group.create_task(self._run_models(group), name="models")
        if self._local is not None:
            group.create_task(self._local.run(), name="http")
        group.create_task(self._link.run(), name="link")
        group.create_task(self._renewal.run(), name="certificate")
        group.create_task(self._desired.run(), name="desired")
        group.create_task(self._desk.run(), name="commands")
        group.create_task(self._updates.run(Refusals("update", self._reporter)), name="updates")
        group.create_task(self._windows.run(), name="windows")
        group.create_task(self._health.run(), name="health")
        group.create_task(self._state.run(), name="state")
        group.create_task(self._health.measure_lag(), name="lag")
        group.create_task(watch_clock(self._clock, self._store, self._reporter), name="clock")
        group.create_task(self._windows.feed_watchdog(), name="watchdog")
        group.create_task(
            collect_daily(self._config.files_dir, self._store.kept_manifests, self._config.garbage),
            name="garbage",
        )

    async def _run_models(self, group: asyncio.TaskGroup) -> None:
        """Start every model; in safe mode not before it is over."""
        if reason := self._safe.reason:
            log.error("safe mode reason=%r", reason)
            self._reporter.event("agent", "safe-mode", reason, severity="error")
            for manager in self._managers.values():
                manager.hold(reason)
            await self._safe.over()
            self._reporter.event("agent", "safe-mode-over", "models start again")
        for name, manager in self._managers.items():
            group.create_task(manager.run(), name=f"slots-{name}")
            group.create_task(self._run_pipeline(name), name=f"pipeline-{name}")
        await self._safe.watch()

    def _bind(self, binding: ModelBinding) -> None:
        """Wire one model name: source, actions, pipeline, slots."""
        name = binding.name
        source = self._open_source(binding)
        pipeline = self._make_pipeline(binding, source)
        manager = self._make_manager(name, pipeline)
        pipeline.on_incident = manager.on_incident
        recorder = Recorder(self._captures, self._clock, self._options.may_capture)
        pipeline.recorder = self._recorders[name] = recorder
        self._pipelines[name] = pipeline
        if isinstance(source, Follower):
            self._followers.append(source)
        if self._local is not None:
            self._local.add(name, pipeline)
        self._managers[name] = manager
        for fault in getattr(source, "faults", []):
            self._tell_source(name, "injected-fault", fault.describe())

    def _open_source(self, binding: ModelBinding) -> Source:
        options = dict(binding.source)
        tally = Tally(lambda code, sentence: self._tell_source(binding.name, code, sentence))
        context = SourceContext(
            binding.name, self._config.state_dir, tally, self._local.server if self._local else None
        )
        return open_source(options.pop("kind"), options, context)

    def _make_pipeline(self, binding: ModelBinding, source: Source) -> WorkerPipeline:
        options = binding.source
        told = ActionContext(
            binding.name, self._reporter.predictions, self._tell_from(binding.name)
        )
        actions = [build_action(one, told) for one in binding.actions]
        self._actions += actions
        return WorkerPipeline(
            binding.name,
            source,
            actions,
            now_ms=self._clock.steady_ms,
            overload=options.get("overload") or None,
            buffer_rows=options.get("buffer_rows", BUFFER_ROWS),
            units=options.get("units"),
            age_limits=AgeLimits(
                options.get("max_age_seconds", 0.0), options.get("max_future_seconds", 0.0)
            ),
        )

    def _make_manager(self, name: str, pipeline: WorkerPipeline) -> ModelManager:
        return ModelManager(
            name,
            self._config.files_dir,
            self._updates,
            self._store,
            self._pool,
            pipeline,
            self._reporter,
            self._facts,
            self._state_due.set,
            maintenance=[parse_window(one) for one in self._config.maintenance],
            crash_limits=self._config.crashes,
            golden_seconds=self._config.golden_seconds,
            now_ms=self._clock.steady_ms,
        )

    def _tell_from(self, model: str) -> Callable[[str, str], None]:
        """A `tell` for an action's thread; a loop that is closing hears no more."""
        loop = asyncio.get_running_loop()

        def tell(code: str, sentence: str) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._tell_source, model, code, sentence)

        return tell

    def _tell_source(self, model: str, code: str, sentence: str) -> None:
        """Something about a source or an action that people should know, told once a kind."""
        log.warning("pipeline model=%s code=%s words=%r", model, code, sentence)
        self._reporter.event("pipeline", code, sentence, severity="warning", model=model)

    async def _run_pipeline(self, name: str) -> None:
        while True:
            try:
                await self._pipelines[name].run()
            except ShoalError as error:
                log.error("source failed model=%s error=%r", name, error.sentence)
                self._reporter.event(
                    "pipeline", error.code, error.sentence, severity="error", model=name
                )
                await asyncio.sleep(SOURCE_RETRY_SECONDS)
            else:
                log.info("source ended model=%s", name)
                self._reporter.event("pipeline", "source-ended", "the source has ended", model=name)
                return

    async def _leave(self) -> None:
        """Close the windows into the outbox, say goodbye, end the workers."""
        with contextlib.suppress(ShoalError, TimeoutError):
            async with asyncio.timeout(5.0):
                await self._windows.close()
        for action in self._actions:
            await asyncio.to_thread(action.close)
        await self._link.close(self._reporter.last_will())
        await self._pool.stop()
        self._outbox.close()
        self._captures.close()
        self._store.close()


async def serve(config: AgentConfig) -> None:
    """Run the agent until SIGTERM or SIGINT."""
    logs = LogRing()
    logging.getLogger().addHandler(logs)
    with hold(config.state_dir):
        agent = Agent(config, logs)
        task = asyncio.create_task(agent.run(), name="agent")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
