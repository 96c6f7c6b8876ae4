"""The resident agent: builds every object, runs every task, in one place.

It imports neither numpy nor cryptography nor a runtime; those live in workers and updaters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from agent.actions import ActionContext, build_action
from agent.bundle import make_bundle
from agent.capture import CaptureStore, Recorder
from agent.capture.replay import replay, send_range
from agent.clock import Clock, find_probe
from agent.commands import CommandDesk
from agent.config import AgentConfig, ModelBinding
from agent.garbage import collect_garbage
from agent.introspect import device_facts
from agent.link import Link
from agent.local import open_local
from agent.lock import hold
from agent.logring import LogRing
from agent.maintenance import parse_window
from agent.manager import STORE_RETRY_SECONDS, ModelManager
from agent.notify import notify, watchdog_seconds
from agent.pipeline import BUFFER_ROWS, AgeLimits, WorkerPipeline
from agent.ports import Action, Follower
from agent.reporter import Identity, Reporter
from agent.safemode import SafeMode
from agent.scrub import held_secrets, scrub_text
from agent.slots import Slots
from agent.sources import SourceContext, Tally, open_source
from agent.spool import Spool
from agent.state_files import open_database
from agent.store import StateStore, StateStoreError
from agent.trust import load_broker
from agent.updater.client import UpdaterError, ask_updater
from agent.updater.wire import Verified, VerifyRequest
from agent.workers.pool import ForkserverPool, PoolOptions
from agent.workers.quarantine import Quarantine
from shoal.errors import ShoalError
from shoal.protocol.commands import CaptureRange, LogTail, Order, Replay, SupportBundle
from shoal.protocol.desired import LOG_LEVELS, DesiredState, DeviceOptions, decode_desired

log = logging.getLogger("agent")

PROBATION_REPORT_SECONDS = 5.0
SOURCE_RETRY_SECONDS = 10.0
LAG_PERIOD_SECONDS = 0.1
GARBAGE_SECONDS = 86400.0
CLOCK_SECONDS = 60.0
STUCK_SECONDS = 120.0
"""A reporting window that closes later than this is stuck: the watchdog is told no more."""


class Agent:
    """One device's service."""

    def __init__(self, config: AgentConfig, logs: LogRing) -> None:
        self._config = config
        self._logs = logs
        self._facts = device_facts(config.profile, config.state_dir, config.sensors)
        identity = Identity(config.device, config.site, config.profile, self._facts)
        self._store = StateStore(open_database(config.state_db))
        self._clock = Clock(self._store.clock())
        self._state_due = asyncio.Event()
        self._outbox = Spool(config.outbox_db, identity.boot_id, config.outbox, self._state_due.set)
        self._broken_told = 0
        self._windows_closed = time.monotonic()
        self._reporter = Reporter(identity, self._outbox, self._clock, lambda: self._link.wake())
        self._captures = CaptureStore(
            config.state_dir / "captures.sqlite", config.capture_max_bytes
        )
        self._maintenance = [parse_window(one) for one in config.maintenance]
        self._recorders: dict[str, Recorder] = {}
        self._safe = SafeMode(self._store)
        self._pool = ForkserverPool(
            PoolOptions(
                num_threads=config.num_threads,
                memory_mb=config.worker_memory_mb,
                quarantine=Quarantine(config.state_dir / "quarantine"),
            )
        )
        self._managers: dict[str, ModelManager] = {}
        self._pipelines: dict[str, WorkerPipeline] = {}
        self._actions: list[Action] = []
        self._followers: list[Follower] = []
        self._local = open_local(config.http)
        self._envelope: bytes | None = None
        self._news = asyncio.Event()
        self._options = DeviceOptions()
        self._options_changed = asyncio.Event()
        self._lags: deque[float] = deque(maxlen=600)
        self._desk = CommandDesk(
            config.state_dir,
            config.device,
            self._clock,
            self._reporter,
            {
                LogTail: self._tell_logs,
                SupportBundle: self._tell_everything,
                CaptureRange: self._send_captures,
                Replay: self._replay,
            },
        )
        self._link = Link(
            config.site,
            config.device,
            self._outbox,
            lambda: load_broker(config.state_dir),
            self._reporter.last_will,
            self._on_desired,
            self._desk.take,
            self._state_due.set,
        )
        for binding in config.models:
            self._bind(binding)
        for follower in self._followers:
            self._pipelines[follower.follows].add_action(follower)

    async def run(self) -> None:
        """Run until cancelled, then leave in order."""
        self._reporter.event("agent", "started", "agent started")
        sequence, payload = self._store.desired()
        if payload:
            self._apply(decode_desired(payload))
        log.info("started device=%s desired_sequence=%d", self._config.device, sequence)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_models(group), name="models")
                if self._local is not None:
                    group.create_task(self._local.run(), name="http")
                group.create_task(self._link.run(), name="link")
                group.create_task(self._follow_desired(), name="desired")
                group.create_task(self._desk.run(), name="commands")
                group.create_task(self._report_windows(), name="windows")
                group.create_task(self._report_health(), name="health")
                group.create_task(self._report_state(), name="state")
                group.create_task(self._measure_lag(), name="lag")
                group.create_task(self._follow_clock(), name="clock")
                group.create_task(self._feed_watchdog(), name="watchdog")
                notify("READY=1")
        except asyncio.CancelledError:  # asked to end: not a crash
            self._safe.clear()
            raise
        finally:
            notify("STOPPING=1")
            await self._leave()

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
        options = dict(binding.source)
        tally = Tally(lambda code, sentence: self._tell_source(binding.name, code, sentence))
        context = SourceContext(
            binding.name, self._config.state_dir, tally, self._local.server if self._local else None
        )
        source = open_source(options.pop("kind"), options, context)
        told = ActionContext(
            binding.name, self._reporter.predictions, self._tell_from(binding.name)
        )
        actions = [build_action(one, told) for one in binding.actions]
        self._actions += actions
        pipeline = WorkerPipeline(
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
        manager = ModelManager(
            binding.name,
            self._config.state_dir,
            self._store,
            self._pool,
            pipeline,
            self._reporter,
            self._facts,
            self._state_due.set,
            maintenance=self._maintenance,
            crash_limits=self._config.crashes,
            golden_seconds=self._config.golden_seconds,
            now_ms=self._clock.steady_ms,
        )
        pipeline.on_incident = manager.on_incident
        recorder = Recorder(self._captures, self._clock, self._may_capture)
        pipeline.recorder = self._recorders[binding.name] = recorder
        self._pipelines[binding.name] = pipeline
        if isinstance(source, Follower):
            self._followers.append(source)
        if self._local is not None:
            self._local.add(binding.name, pipeline)
        self._managers[binding.name] = manager
        for fault in getattr(source, "faults", []):
            self._tell_source(binding.name, "injected-fault", fault.describe())

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

    def _on_desired(self, envelope: bytes) -> None:
        """Only the newest counts; an older one waiting is overwritten."""
        if envelope:
            self._envelope = envelope
            self._news.set()

    async def _follow_desired(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            envelope, self._envelope = self._envelope, None
            if envelope is not None:
                await self._consider(envelope)

    async def _consider(self, envelope: bytes) -> None:
        """Verify a desired state in an updater, store it, then act on it."""
        floor, stored = self._store.desired()
        request = VerifyRequest(
            str(self._config.state_dir),
            self._config.device,
            floor,
            envelope,
            self._clock.now_ms(),
        )
        try:
            reply = await ask_updater(request)
        except UpdaterError as error:
            log.warning("desired refused code=%s error=%r", error.code, error.sentence)
            self._reporter.event("desired", error.code, error.sentence, severity="warning")
            return
        assert isinstance(reply, Verified)
        desired = decode_desired(reply.payload)
        if desired.sequence == floor and stored and reply.payload != stored:
            self._reporter.event(
                "desired",
                "desired-conflict",
                f"desired state: sequence {floor} came twice with different content",
                severity="error",
            )
            return
        try:
            self._store.accept_desired(desired.sequence, reply.payload)
        except StateStoreError as error:  # not obeyed before it is stored; tried again
            self._reporter.event("desired", error.code, error.sentence, severity="error")
            self._envelope = self._envelope or envelope
            asyncio.get_running_loop().call_later(STORE_RETRY_SECONDS, self._news.set)
            return
        self._apply(desired)
        if desired.sequence > floor:
            self._safe.leave()
        self._state_due.set()

    async def _tell_logs(self, order: Order) -> str:
        assert isinstance(order, LogTail)
        secrets = held_secrets(self._config.state_dir, self._config.path)
        return scrub_text("\n".join(self._logs.lines(order.lines)), secrets)

    async def _tell_everything(self, order: Order) -> str:
        status, reason = self._status()
        live = {
            "device": self._config.device,
            "site": self._config.site,
            "status": status,
            "reason": reason,
            "facts": self._facts,
            "slots": {name: _plain(one.slots) for name, one in self._managers.items()},
            "outbox": {
                "rows": self._outbox.rows,
                "bytes": self._outbox.size_bytes,
                "dropped": self._outbox.dropped(),
                "trouble": self._outbox.trouble,
            },
            "captures": {"kept": self._captures.count(), "lost": dict(self._captures.lost)},
            "clock": {"now_ms": self._clock.now_ms(), "synced": self._clock.synced},
            "link": {"connected": self._link.connected, "connects": self._link.connects},
            "desired_sequence": self._store.desired()[0],
        }
        return await make_bundle(
            self._config.path, self._config.state_dir, live, self._logs.lines()
        )

    def _may_capture(self) -> bool:
        return self._config.capture_enabled and self._options.capture is not False

    async def _send_captures(self, order: Order) -> str:
        assert isinstance(order, CaptureRange)
        return send_range(order, self._captures, self._reporter)

    async def _replay(self, order: Order) -> str:
        assert isinstance(order, Replay)
        manager = self._managers.get(order.model)
        slots = manager.slots if manager is not None else None
        return await replay(order, self._captures, slots, self._config.files_dir, self._pool)

    def _apply(self, desired: DesiredState) -> None:
        self._options = desired.options
        level = desired.options.log_level
        logging.getLogger().setLevel((level if level in LOG_LEVELS else "info").upper())
        changed, self._options_changed = self._options_changed, asyncio.Event()
        changed.set()
        for assignment in desired.models:
            manager = self._managers.get(assignment.model)
            if manager is not None:
                manager.assign(assignment)
                continue
            self._reporter.event(
                "execution",
                "no-binding",
                f"{assignment.model}: this device has no source bound to that model",
                severity="error",
                model=assignment.model,
                version=assignment.version,
                rollout=assignment.rollout or None,
                attempt=assignment.attempt,
                data={"state": "rejected", "intent": assignment.intent},
            )

    async def _report_windows(self) -> None:
        while True:
            trial = any(manager.in_probation for manager in self._managers.values())
            period = self._options.window_seconds or self._config.window_seconds
            await self._wait(min(period, PROBATION_REPORT_SECONDS) if trial else period)
            await self._close_windows()

    async def _wait(self, seconds: float) -> None:
        """Sleep, but not through a change of the options."""
        changed = self._options_changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await changed.wait()

    async def _close_windows(self) -> None:
        for name, manager in self._managers.items():
            reports = await self._pipelines[name].take_reports()
            for report in reports:
                self._recorders[name].note(report)
            await manager.observe(reports)
        self._windows_closed = time.monotonic()

    async def _report_health(self) -> None:
        cleaned = time.monotonic()
        while True:
            await self._wait(self._options.health_seconds or self._config.health_seconds)
            lags = sorted(self._lags) or [0.0]
            lag = lags[min(int(len(lags) * 0.99), len(lags) - 1)]
            self._reporter.health(self._pool.pids(), lag * 1e3, self._link.connects)
            if time.monotonic() - cleaned > GARBAGE_SECONDS:
                cleaned = time.monotonic()
                collect_garbage(
                    self._config.files_dir, self._store.kept_manifests(), self._config.garbage
                )

    async def _report_state(self) -> None:
        while True:
            await self._state_due.wait()
            await asyncio.sleep(0.05)  # several changes at once are one message
            self._state_due.clear()
            self._tell_of_broken_outbox()
            status, reason = self._status()
            self._reporter.put_state(
                self._reporter.state(
                    [manager.state() for manager in self._managers.values()],
                    online=True,
                    desired_sequence=self._store.desired()[0],
                    status=status,
                    reason=reason,
                )
            )

    def _tell_of_broken_outbox(self) -> None:
        if self._outbox.set_aside > self._broken_told:
            self._broken_told = self._outbox.set_aside
            name = self._config.outbox_db.name
            self._reporter.event(
                "agent",
                "outbox-broken",
                f"{name} was broken and is set aside; messages that lay in it are lost",
                severity="error",
            )

    def _status(self) -> tuple[str, str]:
        for manager in self._managers.values():
            if manager.trouble:
                return "failing", manager.trouble
        if self._outbox.trouble:
            return "degraded", self._outbox.trouble
        for manager in self._managers.values():
            if manager.degraded:
                return "degraded", manager.degraded
        for name, manager in self._managers.items():
            candidate = manager.slots.candidate
            if manager.updating and candidate is not None:
                words = f"{name} {candidate.assignment.version} is {candidate.stage.value}"
                return "updating", words
        return "ok", ""

    async def _follow_clock(self) -> None:
        """Ask whether the clock is synchronised, tell of jumps, store how far it has come."""
        probe = await asyncio.to_thread(find_probe)
        while True:
            self._clock.synced = await asyncio.to_thread(probe)
            if jump := self._clock.take_jump_ms():
                sentence = f"the wall clock was set by {jump / 1000:+.1f} s"
                log.warning("clock jumped seconds=%.1f", jump / 1000)
                self._reporter.event("agent", "clock-jump", sentence, data={"seconds": jump / 1000})
            with contextlib.suppress(StateStoreError):  # a full disk; the next minute again
                self._store.save_clock(self._clock.known())
            await asyncio.sleep(CLOCK_SECONDS)

    async def _measure_lag(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_PERIOD_SECONDS)
            self._lags.append(max(time.monotonic() - before - LAG_PERIOD_SECONDS, 0.0))

    async def _feed_watchdog(self) -> None:
        period = watchdog_seconds()
        while period:
            await asyncio.sleep(period)
            late = time.monotonic() - self._windows_closed
            allowed = (self._options.window_seconds or self._config.window_seconds) + STUCK_SECONDS
            if late < allowed:
                notify("WATCHDOG=1")
            else:  # systemd starts us again, with a fresh forkserver
                log.error("windows stuck seconds=%.0f", late)

    async def _leave(self) -> None:
        """Close the windows into the outbox, say goodbye, end the workers."""
        with contextlib.suppress(ShoalError, TimeoutError):
            async with asyncio.timeout(5.0):
                await self._close_windows()
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


def _plain(slots: Slots) -> Any:
    return msgspec.to_builtins(slots)
