"""The engine: read, plan, record; may be repeated, and may be killed at any instant.

All of a tick is one transaction, so nothing is ever half done; the director publishes afterwards.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from controller.database import reading, writing
from controller.rollouts import looks
from controller.rollouts.evidence import judge_wave, look_at_wave
from controller.rollouts.late import follow_up
from controller.rollouts.planner import plan
from controller.rollouts.recording import carry_out
from controller.rollouts.reports import apply_reports, has_reports
from controller.rollouts.significance import Look
from controller.rollouts.store import (
    active_rollouts,
    contradicted_rollouts,
    read_to_plan,
    trailing_rollouts,
)
from controller.rollouts.values import GateResult, RolloutView, WaveView
from controller.services import Services

log = logging.getLogger("controller.rollouts")

MAX_STEPS = 20
FOLLOW_SECONDS = 60.0
"""How often late devices of continuous rollouts are looked for."""
COMPARE_SECONDS = 10.0
"""How often what devices run is compared with what they were given by rollouts that are over."""
"""Plans of one tick; a wave without devices passes several states at once."""


class Engine:
    """Takes every active rollout on."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._compared_ms = 0
        self._followed_ms = 0

    def tick(self) -> bool:
        """One round; whether any rollout is active."""
        engine = self._services.engine
        with reading(engine) as connection:
            news = has_reports(connection)
        if news:
            with writing(engine) as connection:
                apply_reports(connection, self._services.now_ms())
        self._follow_up()
        with reading(engine) as connection:
            active = active_rollouts(connection)
            trailing = {*trailing_rollouts(connection), *self._contradicted(connection)}
        for name in [*active, *sorted(trailing)]:
            try:
                self._advance(name)
            except Exception as error:  # one rollout's trouble must not hold the others
                log.exception("event=failed rollout=%s error=%r", name, str(error))
        return bool(active)

    def _follow_up(self) -> None:
        """Now and then, rollouts for devices that came late."""
        now_ms = self._services.now_ms()
        if 0 <= now_ms - self._followed_ms < FOLLOW_SECONDS * 1000:
            return
        self._followed_ms = now_ms
        for name in follow_up(self._services):
            log.info("event=late-devices rollout=%s", name)

    def _contradicted(self, connection: Connection) -> list[str]:
        """Rollouts that are over and no longer true; it costs a look at every assignment."""
        now_ms = self._services.now_ms()
        if 0 <= now_ms - self._compared_ms < COMPARE_SECONDS * 1000:
            return []
        self._compared_ms = now_ms
        return contradicted_rollouts(connection)

    def _advance(self, rollout: str) -> None:
        """Plan and record until nothing is left to do; no transaction where nothing is."""
        for _ in range(MAX_STEPS):
            with reading(self._services.engine) as connection:
                seen = self._judge(connection, rollout)
                planned = plan(seen.view, self._services.now_ms())
            if seen.look is not None and seen.wave is not None:
                with writing(self._services.engine) as connection:
                    looks.store(connection, rollout, seen.wave, seen.look, seen.found)
            if not planned:
                return
            with writing(self._services.engine) as connection:
                now_ms = self._services.now_ms()
                view = _with_gates(read_to_plan(connection, rollout), seen)
                actions = plan(view, now_ms)
                touched = carry_out(connection, view, actions, now_ms)
            log.info("event=planned rollout=%s actions=%d", rollout, len(actions))
            if touched:
                self._services.desired_changed.ring()

    def _judge(self, connection: Connection, rollout: str) -> _Seen:
        """The rollout, with the gates of a wave that is judged; the look that is due is taken."""
        view = read_to_plan(connection, rollout)
        wave = looks.judged_wave(view)
        if wave is None:
            return _Seen(view)
        look = looks.due(connection, view, wave, self._services.now_ms())
        found = look_at_wave(connection, rollout, wave.number, look) if look is not None else ()
        limits = judge_wave(connection, rollout, wave.number)
        tests = found if look is not None else looks.newest(connection, rollout, wave)
        return _Seen(replace(view, gates=limits + tests), wave, look, found)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A rollout as a tick read it, and the look that it took meanwhile."""

    view: RolloutView
    wave: WaveView | None = None
    look: Look | None = None
    found: tuple[GateResult, ...] = ()


def _with_gates(view: RolloutView, seen: _Seen) -> RolloutView:
    """The rollout as it is by now, with the gates that were judged a moment ago.

    They hold for the same soak of the same wave; of another one, nothing is known yet.
    """
    return replace(view, gates=seen.view.gates) if looks.judged_wave(view) == seen.wave else view
