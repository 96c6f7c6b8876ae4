"""The engine: read, plan, record; may be repeated, and may be killed at any instant.

All of a tick is one transaction, so nothing is ever half done; the director publishes afterwards.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from sqlalchemy import Connection

from controller.database import reading, writing
from controller.rollouts import looks
from controller.rollouts.evidence import judge_wave, look_at_wave
from controller.rollouts.planner import current_wave, plan
from controller.rollouts.states import RolloutState, WaveState
from controller.rollouts.store import (
    active_rollouts,
    apply_reports,
    carry_out,
    contradicted_rollouts,
    has_reports,
    read_view,
    trailing_rollouts,
)
from controller.rollouts.values import RolloutView
from controller.services import Services

log = logging.getLogger("controller.rollouts")

MAX_STEPS = 20
COMPARE_SECONDS = 10.0
"""How often what devices run is compared with what they were given by rollouts that are over."""
"""Plans of one tick; a wave without devices passes several states at once."""


class Engine:
    """Takes every active rollout on."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._compared_ms = 0

    def tick(self) -> bool:
        """One round; whether any rollout is active."""
        engine = self._services.engine
        with reading(engine) as connection:
            news = has_reports(connection)
        if news:
            with writing(engine) as connection:
                apply_reports(connection, self._services.now_ms())
        with reading(engine) as connection:
            active = active_rollouts(connection)
            trailing = {*trailing_rollouts(connection), *self._contradicted(connection)}
        for name in [*active, *sorted(trailing)]:
            try:
                self._advance(name)
            except Exception as error:  # one rollout's trouble must not hold the others
                log.exception("event=failed rollout=%s error=%r", name, str(error))
        return bool(active)

    def _contradicted(self, connection: Connection) -> list[str]:
        """Rollouts that are over and no longer true; it costs a look at every assignment."""
        now_ms = self._services.now_ms()
        if 0 <= now_ms - self._compared_ms < COMPARE_SECONDS * 1000:
            return []
        self._compared_ms = now_ms
        return contradicted_rollouts(connection)

    def _advance(self, rollout: str) -> None:
        """Plan and record until nothing is left to do; no transaction where nothing is."""
        self._look(rollout)
        for _ in range(MAX_STEPS):
            with reading(self._services.engine) as connection:
                if not plan(self._view(connection, rollout), self._services.now_ms()):
                    return
            with writing(self._services.engine) as connection:
                now_ms = self._services.now_ms()
                view = self._view(connection, rollout)
                actions = plan(view, now_ms)
                touched = carry_out(connection, view, actions, now_ms)
            log.info("event=planned rollout=%s actions=%d", rollout, len(actions))
            if touched:
                self._services.desired_changed.ring()

    def _view(self, connection: Connection, rollout: str) -> RolloutView:
        view = read_view(connection, rollout)
        wave = current_wave(view)
        if wave is None or view.state not in (RolloutState.RUNNING, RolloutState.PAUSED):
            return view
        if wave.state not in (WaveState.SOAKING, WaveState.EVALUATING):
            return view
        gates = judge_wave(connection, rollout, wave.number)
        return replace(view, gates=gates + looks.newest(connection, rollout, wave))

    def _look(self, rollout: str) -> None:
        """Take the look that is due, once."""
        with reading(self._services.engine) as connection:
            due = looks.due(connection, rollout, self._services.now_ms())
            found = due and look_at_wave(connection, rollout, due[0].number, due[1])
        if due and found is not None:
            with writing(self._services.engine) as connection:
                looks.store(connection, rollout, *due, found)
