"""A rehearsal: a plan on a simulated fleet, from its start to its end, as a story."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from controller.database import reading
from controller.rollouts import drawing
from controller.rollouts.service import count_states, create, get_rollout
from controller.rollouts.states import FINAL_ROLLOUT, RolloutState
from controller.rollouts.values import Specification, parse_specification
from controller.saved_selectors import moment
from controller.simulation.scenario import find_scenario
from controller.simulation.world import MODEL, NEW, Fleet, World
from shoal.errors import InvalidInputError

Document = dict[str, Any]
Tell = Callable[[Document, float], None]
"""Told of the rollout and of the virtual seconds that have passed, after each step."""

BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)
STEP_SECONDS = 15.0
CALM_STEP_SECONDS = 60.0
"""Between two ticks of the engine: fewer while devices only report."""
MAX_HOURS = 72.0
MAX_DEVICES = 100_000


@dataclass(slots=True)
class Rehearsal:
    """What happened."""

    outcome: str
    seconds: float
    """Of the virtual clock, from the start to the end."""
    rollout: Document
    states: dict[str, int]
    """How many devices ended in each state."""
    timeline: list[Document] = field(default_factory=list)
    """What changed, as {seconds, what, state, reason}."""
    messages: int = 0
    preview: Document = field(default_factory=dict)
    real_seconds: float = 0.0

    def document(self) -> Document:
        """As JSON has it; the same plan, fleet and seed give the same."""
        found: Document = msgspec.to_builtins(self)
        del found["real_seconds"]
        for wave in found["preview"]["waves"]:
            del wave["devices"]
        return found


def parse_plan(plan: Document) -> Specification:
    """A specification for the simulated model; approvals are taken as given."""
    waves = [
        {key: value for key, value in wave.items() if key != "approval"}
        for wave in plan.get("waves", [])
    ]
    kept = {key: plan[key] for key in plan if key not in ("waves", "approvals", "expect", "start")}
    asked = kept | {"model": MODEL, "version": str(NEW)} | ({"waves": waves} if waves else {})
    return parse_specification(asked)


def rehearse(plan: Document, fleet: Fleet, tell: Tell | None = None) -> Rehearsal:
    """Run a plan to its end, or until it asks a person."""
    specification = parse_plan(plan)
    begin = BEGIN
    if specification.start_at is not None:
        begin = specification.start_at - timedelta(minutes=10)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shoal-rehearsal-") as text:
        world = World(Path(text), fleet, begin)
        try:
            found = _run(world, specification, tell)
        finally:
            world.close()
    found.real_seconds = time.monotonic() - started
    return found


def _run(world: World, specification: Specification, tell: Tell | None) -> Rehearsal:
    with reading(world.services.engine) as connection:
        preview = drawing.preview(connection, specification, moment(world.services))
    name = create(world.services, specification, "rehearsal")["rollout"]
    timeline: list[Document] = []
    known: dict[str, str] = {}
    while True:
        world.run_for(CALM_STEP_SECONDS if world.is_calm else STEP_SECONDS)
        with reading(world.services.engine) as connection:
            document = get_rollout(connection, name)
            states = sum(count_states(connection, name).values(), start=Counter[str]())
        seconds = (world.now_ms - world.began_ms) / 1000
        _note(timeline, known, document, seconds)
        if tell is not None:
            tell(document, seconds)
        ended = document["state"] in FINAL_ROLLOUT
        asks = document["state"] == RolloutState.PAUSED
        late = seconds > MAX_HOURS * 3600
        if ended or asks or late:
            outcome = "unfinished" if late and not ended else document["state"]
            counts = dict(sorted(states.items()))
            return Rehearsal(outcome, seconds, document, counts, timeline, world.messages, preview)


def _note(
    timeline: list[Document], known: dict[str, str], document: Document, seconds: float
) -> None:
    """Write down which states changed."""
    things = [("rollout", document), *((f"wave {one['name']}", one) for one in document["waves"])]
    for what, thing in things:
        if known.get(what) != thing["state"]:
            known[what] = thing["state"]
            timeline.append(
                {
                    "seconds": seconds,
                    "what": what,
                    "state": thing["state"],
                    "reason": thing["reason"],
                }
            )


def run(
    plan: Document,
    *,
    devices: int,
    scenario: str,
    seed: int,
    window_seconds: float,
    tell: Tell | None = None,
) -> Document:
    """What `shoal simulate` calls, found by its entry point: a rehearsal as a document."""
    if not 2 <= devices <= MAX_DEVICES:
        raise InvalidInputError(f"devices: expected 2 to {MAX_DEVICES}, got {devices}")
    fleet = Fleet(devices, find_scenario(scenario), seed, window_seconds)
    found = rehearse(plan, fleet, tell)
    about = {"devices": devices, "scenario": scenario, "words": fleet.scenario.words, "seed": seed}
    return about | found.document()
