"""The slots of one model name, as a pure state machine.

`active` is the release that is committed, `last_good` the one before, `candidate` the one on trial.
`step` takes what happened and returns the new slots; the manager stores them first and acts after,
so a power cut anywhere restarts into what was good. Whatever fails, `active` is untouched.

    assigned → downloading → staged → verifying → probation → committed
                  any of them → refused          probation → rolled_back
"""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec import Struct

from shoal.errors import ShoalError
from shoal.protocol.desired import Assignment

MAX_PROBATION_BOOTS = 3
"""A candidate that sees this many starts of the agent without being committed is given up."""


class Stage(Enum):
    """Where a candidate is; the values travel in `ModelState.candidate_state`."""

    ASSIGNED = "assigned"
    DOWNLOADING = "downloading"
    STAGED = "staged"
    VERIFYING = "verifying"
    PROBATION = "probation"
    COMMITTED = "committed"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


class Happening(Enum):
    """What the manager saw."""

    FETCH_STARTED = "fetch_started"
    FETCHED = "fetched"
    LOAD_STARTED = "load_started"
    SWITCHED = "switched"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    FAILED = "failed"


TRANSITIONS: dict[tuple[Stage, Happening], Stage] = {
    (Stage.ASSIGNED, Happening.FETCH_STARTED): Stage.DOWNLOADING,
    (Stage.ASSIGNED, Happening.FAILED): Stage.REFUSED,
    (Stage.DOWNLOADING, Happening.FETCHED): Stage.STAGED,
    (Stage.DOWNLOADING, Happening.FAILED): Stage.REFUSED,
    (Stage.STAGED, Happening.LOAD_STARTED): Stage.VERIFYING,
    (Stage.STAGED, Happening.FAILED): Stage.REFUSED,
    (Stage.VERIFYING, Happening.SWITCHED): Stage.PROBATION,
    (Stage.VERIFYING, Happening.HEALTHY): Stage.COMMITTED,  # a rollback needs no probation
    (Stage.VERIFYING, Happening.FAILED): Stage.REFUSED,
    (Stage.PROBATION, Happening.HEALTHY): Stage.COMMITTED,
    (Stage.PROBATION, Happening.UNHEALTHY): Stage.ROLLED_BACK,
    (Stage.PROBATION, Happening.FAILED): Stage.ROLLED_BACK,
}
FINAL = frozenset({Stage.COMMITTED, Stage.REFUSED, Stage.ROLLED_BACK})


class ReleaseRef(Struct, frozen=True):
    """A release on disk, and the variant chosen of it."""

    version: str
    sequence: int
    manifest_sha256: str
    variant: str


class Candidate(Struct, frozen=True):
    """A release on trial, or the end of the last trial."""

    assignment: Assignment
    stage: Stage
    release: ReleaseRef | None = None
    """Known once it is staged."""
    boots: int = 0
    code: str = ""
    sentence: str = ""


class Slots(Struct, frozen=True):
    """All of one model name."""

    model: str
    active: ReleaseRef | None = None
    last_good: ReleaseRef | None = None
    candidate: Candidate | None = None

    @property
    def running(self) -> ReleaseRef | None:
        """What answers: the candidate in probation, else the active release."""
        if self.candidate is not None and self.candidate.stage is Stage.PROBATION:
            return self.candidate.release
        return self.active


class IllegalStepError(ShoalError):
    """Something happened that cannot happen in this stage: a defect, never a user's fault."""

    code = "illegal-step"


def is_news(slots: Slots, assignment: Assignment) -> bool:
    """Whether an assignment asks for anything that is not done, under way or refused already."""
    candidate = slots.candidate
    return candidate is None or not _same(candidate.assignment, assignment)


def assign(slots: Slots, assignment: Assignment) -> Slots:
    """Make `assignment` the candidate; one under way is given up."""
    return msgspec.structs.replace(slots, candidate=Candidate(assignment, Stage.ASSIGNED))


def refusal(slots: Slots, assignment: Assignment) -> tuple[str, str] | None:
    """Code and sentence if the slots forbid an assignment before anything is fetched."""
    active = slots.active
    if assignment.intent != "rollback" and active and assignment.release_sequence < active.sequence:
        return "release-rollback", (
            f"{slots.model} {assignment.version}: release {assignment.release_sequence} is older "
            f"than {active.sequence}, which is committed, and no rollback was asked for"
        )
    return None


def step(
    slots: Slots,
    happening: Happening,
    *,
    release: ReleaseRef | None = None,
    code: str = "",
    sentence: str = "",
) -> Slots:
    """Return the slots after `happening`; `release` comes with FETCHED, words with failures."""
    candidate = slots.candidate
    if candidate is None or (candidate.stage, happening) not in TRANSITIONS:
        now = "no candidate" if candidate is None else candidate.stage.value
        raise IllegalStepError(f"{slots.model}: {happening.value} cannot happen in {now}")
    stage = TRANSITIONS[candidate.stage, happening]
    changed = msgspec.structs.replace(
        candidate, stage=stage, release=release or candidate.release, code=code, sentence=sentence
    )
    if stage is not Stage.COMMITTED:
        return msgspec.structs.replace(slots, candidate=changed)
    before = slots.active
    keep = slots.last_good if before == changed.release else before
    return msgspec.structs.replace(slots, active=changed.release, last_good=keep, candidate=changed)


def restart(slots: Slots) -> Slots:
    """What the slots become when the agent starts: probation goes on, anything less is redone."""
    candidate = slots.candidate
    if candidate is None or candidate.stage in FINAL:
        return slots
    if candidate.stage is not Stage.PROBATION:
        return assign(slots, candidate.assignment)
    boots = candidate.boots + 1
    counted = msgspec.structs.replace(
        slots, candidate=msgspec.structs.replace(candidate, boots=boots)
    )
    if boots < MAX_PROBATION_BOOTS:
        return counted
    return step(
        counted,
        Happening.UNHEALTHY,
        code="crash-loop",
        sentence=(
            f"{slots.model} {candidate.assignment.version}: the agent started {boots} times "
            "during its probation"
        ),
    )


def _same(a: Assignment, b: Assignment) -> bool:
    def key(one: Assignment) -> tuple[str, str, int, str]:
        return one.manifest_sha256, one.rollout, one.attempt, one.intent

    return key(a) == key(b)
