"""The slots of one model name, as a pure state machine.

`active` is the release that is committed, `last_good` the one before, `candidate` the one on trial.
`step` takes what happened and returns the new slots; the manager stores them first and acts after,
so a power cut anywhere restarts into what was good. Whatever a candidate does, `active` stays.

    assigned → downloading → verified → compatible → staged → loaded → warm → golden
             → [shadow] → probation → committed
    before probation: refused          probation: rolled_back
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
    """What a candidate has reached; the values travel in `ModelState.candidate_state`."""

    ASSIGNED = "assigned"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    """The manifest is what was signed and assigned."""
    COMPATIBLE = "compatible"
    """A variant fits this device; its files are being fetched."""
    STAGED = "staged"
    """Every file lies on the disk, hashed."""
    LOADED = "loaded"
    """A worker holds the model."""
    WARM = "warm"
    """It has run, so its latency is known."""
    GOLDEN = "golden"
    """The golden samples came out right on this device."""
    SHADOW = "shadow"
    """It runs beside the active release on the same windows; its answers go nowhere."""
    PROBATION = "probation"
    """It answers, and is watched."""
    COMMITTED = "committed"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"

    @classmethod
    def _missing_(cls, value: object) -> Stage:
        """A stage of another version of the agent ("verifying" of the first): begin again."""
        return cls.ASSIGNED


class Happening(Enum):
    """What the manager saw."""

    FETCH_STARTED = "fetch_started"
    VERIFIED = "verified"
    FITS = "fits"
    FETCHED = "fetched"
    FOUND = "found"
    """The release is `active` or `last_good`: its files are here."""
    LOADED = "loaded"
    WARMED = "warmed"
    GOLDEN_PASSED = "golden_passed"
    SHADOW_STARTED = "shadow_started"
    SWITCHED = "switched"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    FAILED = "failed"


_BEFORE_PROBATION = (
    Stage.ASSIGNED,
    Stage.DOWNLOADING,
    Stage.VERIFIED,
    Stage.COMPATIBLE,
    Stage.STAGED,
    Stage.LOADED,
    Stage.WARM,
    Stage.GOLDEN,
    Stage.SHADOW,
)
TRANSITIONS: dict[tuple[Stage, Happening], Stage] = {
    (Stage.ASSIGNED, Happening.FETCH_STARTED): Stage.DOWNLOADING,
    (Stage.DOWNLOADING, Happening.VERIFIED): Stage.VERIFIED,
    (Stage.VERIFIED, Happening.FITS): Stage.COMPATIBLE,
    (Stage.COMPATIBLE, Happening.FETCHED): Stage.STAGED,
    (Stage.ASSIGNED, Happening.FOUND): Stage.STAGED,
    (Stage.STAGED, Happening.LOADED): Stage.LOADED,
    (Stage.LOADED, Happening.WARMED): Stage.WARM,
    (Stage.WARM, Happening.GOLDEN_PASSED): Stage.GOLDEN,
    (Stage.GOLDEN, Happening.SHADOW_STARTED): Stage.SHADOW,
    (Stage.GOLDEN, Happening.SWITCHED): Stage.PROBATION,
    (Stage.GOLDEN, Happening.HEALTHY): Stage.COMMITTED,  # was committed before: no probation
    (Stage.SHADOW, Happening.SWITCHED): Stage.PROBATION,
    (Stage.PROBATION, Happening.HEALTHY): Stage.COMMITTED,
    (Stage.PROBATION, Happening.UNHEALTHY): Stage.ROLLED_BACK,
    (Stage.PROBATION, Happening.FAILED): Stage.ROLLED_BACK,
} | {(stage, Happening.FAILED): Stage.REFUSED for stage in _BEFORE_PROBATION}
FINAL = frozenset({Stage.COMMITTED, Stage.REFUSED, Stage.ROLLED_BACK})


class ReleaseRef(Struct, frozen=True):
    """A release on disk, and the variant chosen of it."""

    version: str
    sequence: int
    manifest_sha256: str
    variant: str
    memory_bytes: int = 0
    """What loading it takes, estimated; 0 where that is not known."""


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
    stopped: str = ""
    """Why nothing runs although a release is committed: it crashed too often and none was before.
    The next commit clears it."""

    @property
    def oldest_sequence(self) -> int:
        """Of what is committed and what was before: nothing older is ever needed again."""
        return min((ref.sequence for ref in (self.active, self.last_good) if ref), default=0)

    @property
    def running(self) -> ReleaseRef | None:
        """What answers: the candidate in probation, else the active release."""
        if self.candidate is not None and self.candidate.stage is Stage.PROBATION:
            return self.candidate.release
        return None if self.stopped else self.active


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


def find_here(slots: Slots, assignment: Assignment) -> ReleaseRef | None:
    """The committed release that an assignment names, if it needs no fetching."""
    for ref in (slots.active, slots.last_good):
        if ref is not None and ref.manifest_sha256 == assignment.manifest_sha256:
            return ref
    return None


def needs_probation(slots: Slots, assignment: Assignment) -> bool:
    """Not for a rollback, nor for what is committed already: both have stood theirs."""
    active = slots.active
    same = active is not None and active.manifest_sha256 == assignment.manifest_sha256
    return assignment.intent != "rollback" and not same


def step(
    slots: Slots,
    happening: Happening,
    *,
    release: ReleaseRef | None = None,
    code: str = "",
    sentence: str = "",
) -> Slots:
    """Return the slots after `happening`; `release` comes with FETCHED or FOUND, words with
    failures."""
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
    return msgspec.structs.replace(
        slots, active=changed.release, last_good=keep, candidate=changed, stopped=""
    )


def give_up(slots: Slots, sentence: str) -> Slots:
    """The committed release crashed too often: the one before takes over, else the model stops."""
    candidate = slots.candidate
    if candidate is not None and candidate.stage is Stage.COMMITTED:
        candidate = msgspec.structs.replace(
            candidate, stage=Stage.ROLLED_BACK, code="crash-loop", sentence=sentence
        )
    if slots.last_good is None:
        return msgspec.structs.replace(slots, candidate=candidate, stopped=sentence)
    return msgspec.structs.replace(
        slots, active=slots.last_good, last_good=None, candidate=candidate
    )


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
