"""Turning what happened into messages; everything goes through the outbox."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.clock import Clock
from agent.ports import Answers, WindowReport
from agent.sources.host import read_temperature
from agent.spool import Spool
from shoal import __version__
from shoal.ids import DeviceId, SiteId
from shoal.latency import latency_quantile
from shoal.protocol.messages import (
    Captures,
    Event,
    Header,
    Health,
    InvalidMessageError,
    ModelState,
    Predictions,
    Reply,
    State,
    Statistics,
    Window,
    encode,
)
from shoal.protocol.topics import Channel

REPLY_PART = 16_000
"""Characters; even if each of them takes six bytes in JSON, a part is a message."""

log = logging.getLogger("agent.reporter")


@dataclass(slots=True)
class Identity:
    """Who this is: the same in every message. A boot id is one run of the agent."""

    device: DeviceId
    site: SiteId
    profile: str
    facts: dict[str, str | int | float | bool]
    boot_id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])


class Reporter:
    """Builds each kind of message and puts it into the outbox."""

    def __init__(
        self, identity: Identity, outbox: Spool, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self._identity = identity
        self._outbox = outbox
        self._clock = clock
        self._wake = wake
        self.refused = 0
        """Messages that could not be stored for their size or content."""

    def state(
        self,
        models: list[ModelState],
        *,
        online: bool,
        desired_sequence: int,
        status: str = "ok",
        reason: str = "",
    ) -> State:
        """What the device is now; the caller publishes or stores it."""
        return State(
            **self._header(),
            online=online,
            status=status,
            reason=reason,
            agent_version=__version__,
            profile=self._identity.profile,
            desired_sequence=desired_sequence,
            models=models,
            facts=self._identity.facts,
        )

    def last_will(self) -> bytes:
        """What the broker says when we are gone."""
        return encode(self.state([], online=False, desired_sequence=0))

    def put_state(self, state: State) -> None:
        """Store the state for sending."""
        self._put(Channel.STATE, state)

    def event(self, kind: str, code: str, sentence: str, **more: Any) -> None:
        """Store an event; `more` are fields of `Event`."""
        self._put(
            Channel.EVENTS,
            Event(**self._header(), kind=kind, code=code, sentence=sentence[:2000], **more),
        )

    def window(self, report: WindowReport, *, slot: str, baseline: str, pss_bytes: int) -> None:
        """Store a closed window and its statistics.

        The report's times are steady; they become wall time here, so that a clock that was set
        within the window neither lengthens it nor turns it round.
        """
        manifest = report.release.manifest
        common: dict[str, Any] = {
            "model": manifest.model,
            "version": manifest.version,
            "release_sequence": manifest.sequence,
            "manifest": report.release.manifest_sha256,
            "slot": slot,
            "runtime": report.facts.runtime,
            "runtime_version": report.facts.version,
            "kernels": report.facts.kernels,
            "start_ms": self._clock.to_wall_ms(report.start_ms),
            "end_ms": self._clock.to_wall_ms(report.end_ms),
        }
        counts = report.latency_counts
        self._put(
            Channel.WINDOW,
            Window(
                **self._header(),
                **common,
                in_count=report.in_count,
                ok=report.ok,
                dropped=report.dropped,
                failed=report.failed,
                latency_p50_us=latency_quantile(counts, 0.5),
                latency_p95_us=latency_quantile(counts, 0.95),
                latency_p99_us=latency_quantile(counts, 0.99),
                latency_max_us=round(report.latency_max_us, 1),
                latency_counts=_trimmed(counts),
                worker_restarts=report.worker_restarts,
                worker_pss_bytes=pss_bytes,
                labels=report.labels,
            ),
        )
        if report.statistics_rows or report.statistics_lost:
            self._put(
                Channel.STATISTICS,
                Statistics(
                    **self._header(),
                    **common,
                    baseline=baseline,
                    rows=report.statistics_rows,
                    lost=report.statistics_lost,
                    features=report.features,
                    outputs=report.outputs,
                ),
            )

    def predictions(self, answers: Sequence[Answers]) -> None:
        """Store single answers, a message each, for devices that opted in."""
        messages = [
            Predictions(
                **self._header(),
                model=one.model,
                version=one.version,
                release_sequence=one.release_sequence,
                names=one.names,
                sample_ms=one.times_ms,
                values=[[round_(value) for value in row] for row in one.values],
                labels=one.labels,
            )
            for one in answers
        ]
        try:
            self._outbox.put_all(Channel.PREDICTIONS, messages, self._clock.steady_ms())
        except InvalidMessageError:
            for message in messages:  # only those at fault are refused
                self._put(Channel.PREDICTIONS, message)
        self._wake()

    def reply(self, command: str, text: str, *, code: str = "", sentence: str = "") -> None:
        """Store the answer to a command, in parts; a `code` makes it a refusal."""
        parts = [text[at : at + REPLY_PART] for at in range(0, len(text), REPLY_PART)] or [""]
        for number, part in enumerate(parts, 1):
            self._put(
                Channel.REPLIES,
                Reply(
                    **self._header(),
                    command=command,
                    ok=not code,
                    code=code,
                    sentence=sentence[:2000],
                    part=number,
                    parts=len(parts),
                    text=part,
                ),
            )

    def captures(self, **fields: Any) -> None:
        """Store captured samples for sending; `fields` are those of `Captures`."""
        self._put(Channel.CAPTURES, Captures(**self._header(), **fields))

    def health(self, pids: Iterable[int], loop_lag_p99_ms: float, connects: int) -> None:
        """Store a look at host, process, link and outbox."""
        memory = psutil.virtual_memory()
        self._put(
            Channel.HEALTH,
            Health(
                **self._header(),
                cpu_ratio=psutil.cpu_percent() / 100,
                load_1m=round(psutil.getloadavg()[0], 2),
                memory_total_bytes=memory.total,
                memory_available_bytes=memory.available,
                disk_free_bytes=psutil.disk_usage("/").free,
                temperature_c=read_temperature(),
                agent_pss_bytes=pss_bytes("self"),
                workers_pss_bytes=sum(pss_bytes(pid) for pid in pids),
                loop_lag_p99_ms=round(loop_lag_p99_ms, 2),
                link_connects=connects,
                outbox_rows=self._outbox.rows,
                outbox_bytes=self._outbox.size_bytes,
                outbox_dropped=self._outbox.dropped(),
            ),
        )

    def _put(self, channel: Channel, message: Header) -> None:
        try:
            self._outbox.put(channel, message, self._clock.steady_ms())
        except InvalidMessageError as error:
            self.refused += 1
            log.error("message refused channel=%s error=%r", channel.value, error.sentence)
        self._wake()

    def _header(self) -> dict[str, Any]:
        return {
            "device": self._identity.device,
            "site": self._identity.site,
            "boot_id": self._identity.boot_id,
            "seq": 0,  # the outbox gives it at the first sending
            "ts_ms": self._clock.now_ms(),
            "uptime_ms": self._clock.uptime_ms(),
            "clock_synced": self._clock.synced,
        }


def pss_bytes(pid: int | str) -> int:
    """Proportional set size of a process; 0 when it is gone or may not be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def round_(value: float) -> float | None:
    """Seven digits, as float32 holds; what JSON cannot say becomes None."""
    return float(f"{value:.7g}") if value - value == 0 else None


def _trimmed(counts: list[int]) -> list[int]:
    last = max((i for i, count in enumerate(counts) if count), default=-1)
    return counts[: last + 1]
