"""What the device answers to each kind of order that the command desk has verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.bundle import make_bundle
from agent.capture import CaptureStore
from agent.capture.replay import replay, send_range
from agent.clock import Clock
from agent.commands import Handler
from agent.config import AgentConfig
from agent.introspect import Facts
from agent.link import Link
from agent.logring import LogRing
from agent.manager import ModelManager
from agent.reporter import Reporter
from agent.scrub import held_secrets, scrub_text
from agent.spool import Spool
from agent.workers.pool import ForkserverPool
from shoal.protocol.commands import CaptureRange, LogTail, Order, Replay, SupportBundle


@dataclass(frozen=True, slots=True)
class Known:
    """What of the running agent a support bundle tells."""

    facts: Facts
    managers: Mapping[str, ModelManager]
    outbox: Spool
    captures: CaptureStore
    clock: Clock
    link: Callable[[], Link]
    """The link is made last: it needs who answers."""
    status: Callable[[], tuple[str, str]]
    desired_sequence: Callable[[], int]


class Orders:
    """Answers orders; each method is a handler of the desk."""

    def __init__(
        self,
        config: AgentConfig,
        logs: LogRing,
        known: Known,
        reporter: Reporter,
        pool: ForkserverPool,
    ) -> None:
        self._config = config
        self._logs = logs
        self._known = known
        self._reporter = reporter
        self._pool = pool

    def handlers(self) -> dict[type[Order], Handler]:
        """Who answers which kind."""
        return {
            LogTail: self._tell_logs,
            SupportBundle: self._tell_everything,
            CaptureRange: self._send_captures,
            Replay: self._replay,
        }

    async def _tell_logs(self, order: Order) -> str:
        assert isinstance(order, LogTail)
        secrets = held_secrets(self._config.state_dir, self._config.path)
        return scrub_text("\n".join(self._logs.lines(order.lines)), secrets)

    async def _tell_everything(self, order: Order) -> str:
        return await make_bundle(
            self._config.path,
            self._config.state_dir,
            _live(self._config, self._known),
            self._logs.lines(),
        )

    async def _send_captures(self, order: Order) -> str:
        assert isinstance(order, CaptureRange)
        return send_range(order, self._known.captures, self._reporter)

    async def _replay(self, order: Order) -> str:
        assert isinstance(order, Replay)
        manager = self._known.managers.get(order.model)
        slots = manager.slots if manager is not None else None
        return await replay(order, self._known.captures, slots, self._config.files_dir, self._pool)


def _live(config: AgentConfig, known: Known) -> dict[str, Any]:
    """What the running agent knows of itself."""
    status, reason = known.status()
    link, outbox, captures = known.link(), known.outbox, known.captures
    return {
        "device": config.device,
        "site": config.site,
        "status": status,
        "reason": reason,
        "facts": known.facts,
        "slots": {name: msgspec.to_builtins(one.slots) for name, one in known.managers.items()},
        "outbox": {
            "rows": outbox.rows,
            "bytes": outbox.size_bytes,
            "dropped": outbox.dropped(),
            "trouble": outbox.trouble,
        },
        "captures": {"kept": captures.count(), "lost": dict(captures.lost)},
        "clock": {"now_ms": known.clock.now_ms(), "synced": known.clock.synced},
        "link": {"connected": link.connected, "connects": link.connects},
        "desired_sequence": known.desired_sequence(),
    }
