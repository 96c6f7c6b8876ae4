"""What a rollout is made of, as frozen values: options, and the view that the planner gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from controller.rollouts.states import ExecutionState, RolloutState, WaveState
from shoal.errors import InvalidInputError
from shoal.ids import NAME_PATTERN, VERSION_PATTERN
from shoal.maintenance import parse_window
from shoal.protocol.manifest import Gates
from shoal.selector import parse_selector

Seconds = Annotated[float, Meta(ge=0, le=30 * 86400)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Verdict = Literal["pass", "fail", "inconclusive", "not-judged"]


class WaveSpec(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One wave: so many devices, or as many as make this share of all, waves before included.

    Or who matches a selector of its own (at most `devices` of them), or many waves that grow:
    `base`, then `factor` times the wave before, at most `cap`, until every device is in one.
    """

    name: Annotated[str, Meta(min_length=1, max_length=40)]
    devices: Annotated[int, Meta(ge=1)] | None = None
    share: Annotated[float, Meta(gt=0, le=1)] | None = None
    selector: Annotated[str, Meta(min_length=1, max_length=400)] | None = None
    base: Annotated[int, Meta(ge=1)] | None = None
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    cap: Annotated[int, Meta(ge=1)] | None = None
    approval: bool = False
    """It is released only when another person has approved it."""


DEFAULT_WAVES = (
    WaveSpec(name="canary", devices=1),
    WaveSpec(name="25 %", share=0.25),
    WaveSpec(name="100 %", share=1.0),
)


class ChosenGates(Gates, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Limits that an operator sets instead of the author's; a misspelt one is no limit."""


class Options(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a rollout goes, as its operator said; stored with it."""

    waves: Annotated[tuple[WaveSpec, ...], Meta(min_length=1, max_length=20)] = DEFAULT_WAVES
    soak_seconds: Seconds = 600.0
    """How long all devices of a wave must run before its gates are judged."""
    probation_seconds: Seconds | None = None
    """The device's own probation; None: the manifest's."""
    shadow_rows: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    shadow_seconds: Seconds | None = None
    """How long the release answers beside the one before, unheard; None: the manifest's."""
    offer_seconds: Seconds = 3600.0
    """How long a device may take to accept."""
    step_seconds: Seconds = 900.0
    """How long a device may stay in any later step."""
    evaluate_seconds: Seconds = 600.0
    """How long gates may wait for enough data before the wave is inconclusive."""
    max_failed_ratio: Ratio = 0.1
    """Share of a wave's devices that may fail; rounded down, so one failure in a small canary
    is too many."""
    max_under_way: Annotated[int, Meta(ge=1)] | None = None
    """How many devices may be offered the release and not have ended; None: all of a wave."""
    max_under_way_per_site: Annotated[int, Meta(ge=1)] | None = None
    control_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Held back until every wave has passed, so that each wave has a control."""
    start_at: Annotated[datetime, Meta(tz=True)] | None = None
    """Until then it is scheduled."""
    priority: Annotated[int, Meta(ge=0, le=100)] = 0
    on_conflict: Literal["refuse", "queue", "supersede"] = "refuse"
    """Where another rollout of the model is under way: do not start, wait for its end, or take its
    place if that one's priority is lower."""
    continuous: bool = False
    """Devices that come late get the release, too."""
    late_at_once: Annotated[int, Meta(ge=1)] = 10
    """How many of those at once."""
    approvals: Annotated[int, Meta(ge=0, le=5)] = 0
    """How many other people must approve before it starts."""
    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 1
    """How often a device is offered the release that it failed to fetch or did not answer."""
    retry_base_seconds: Annotated[float, Meta(ge=1, le=86400)] = 60.0
    """Before the second attempt; twice as long before each one after."""
    retry_cap_seconds: Annotated[float, Meta(ge=1, le=30 * 86400)] = 3600.0
    maintenance_windows: Annotated[tuple[str, ...], Meta(max_length=20)] = ()
    """Offers go out only inside them; none: always."""
    time_zone: str = "UTC"
    """Of the windows."""
    min_reached_ratio: Ratio = 0.5
    """A wave that reaches fewer of its devices is inconclusive."""
    on_failure: Literal["rollback", "pause"] = "rollback"
    gates: ChosenGates | None = None
    """None: the manifest's."""
    resolved_from: Annotated[str, Meta(max_length=130)] = ""
    """MODEL@ALIAS, where an alias named the release."""


class Specification(Options, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What people send to create a rollout."""

    model: Annotated[str, Meta(pattern=NAME_PATTERN)]
    version: Annotated[str, Meta(pattern=VERSION_PATTERN)]
    selector: str = "*"
    start: bool = True
    expect: Annotated[int, Meta(ge=1)] | None = None
    """How many devices a person saw match; refused when it is another number by now."""

    def options(self) -> Options:
        """The part that is stored as options."""
        names = Options.__struct_fields__
        return Options(**{name: getattr(self, name) for name in names})


def parse_specification(document: Any) -> Specification:
    """Check what was sent, or raise `InvalidInputError` naming the field."""
    try:
        found = msgspec.convert(document, Specification)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"rollout: {error}", code="invalid-rollout") from error
    for wave in found.waves:
        _check_wave(wave)
    try:
        ZoneInfo(found.time_zone)
        for window in found.maintenance_windows:
            parse_window(window)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInputError(
            f"rollout: time_zone {found.time_zone[:60]!r}: expected a name such as Europe/Berlin",
            code="invalid-rollout",
        ) from error
    except InvalidInputError as error:
        raise InvalidInputError(
            f"rollout: maintenance_windows: {error.sentence}", code="invalid-rollout"
        ) from error
    return found


def _check_wave(wave: WaveSpec) -> None:
    given = [name for name in ("devices", "share", "selector", "base") if getattr(wave, name)]
    if len(given) != 1 and given != ["devices", "selector"]:
        raise InvalidInputError(
            f"rollout: wave {wave.name!r}: expected either devices or share, or base, or selector "
            f"(with or without devices), got {' and '.join(given) or 'none'}",
            code="invalid-rollout",
        )
    if wave.selector is not None:
        parse_selector(wave.selector)


@dataclass(frozen=True, slots=True)
class WaveView:
    """A wave as stored."""

    number: int
    state: WaveState
    released_ms: int | None = None
    soaking_ms: int | None = None
    evaluating_ms: int | None = None
    promoted: bool = False
    """Passed by hand: what failed in it was accepted."""
    needs_approval: bool = False


class ExecutionView(Struct, frozen=True, gc=False):
    """A device's newest attempt, with what the device runs now.

    A tick may make 100,000 of them: a `Struct` costs a fifth of what a dataclass does.
    """

    device: str
    wave: int
    attempt: int
    state: ExecutionState
    updated_ms: int
    site: str = ""
    previous_sequence: int | None = None
    reported_success: bool = False
    """The device said it succeeded; the digest it runs must agree before we believe it."""
    active_sequence: int | None = None
    digest_agrees: bool = False
    active_version: str | None = None
    sentence: str = ""
    assigned_update: bool = False
    """Its assignment says to run the release: no other rollout has moved it since."""
    assigned_rollback: bool = False
    """Its assignment already says to go back."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate's verdict. inconclusive: too little data yet; not-judged: nothing to compare with."""

    name: str
    verdict: Verdict
    sentence: str
    value: float | None = None
    limit: float | None = None
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Approval:
    """A person agreed to a wave; wave 0 is the start."""

    wave: int
    person: str


@dataclass(frozen=True, slots=True)
class RolloutView:
    """Everything the planner needs to know of a rollout."""

    rollout: str
    model: str
    version: str
    release_sequence: int
    state: RolloutState
    options: Options
    waves: tuple[WaveView, ...]
    executions: tuple[ExecutionView, ...]
    gates: tuple[GateResult, ...] = field(default=())
    """Of the wave under way, computed when it is soaking or evaluated."""
    probation_seconds: float = 0.0
    """How long devices watch the release: the operator's word, else the manifest's."""
    reason: str = ""
    approvals: tuple[Approval, ...] = ()
    blocked_by: str = ""
    """Another rollout of the model that is under way; asked only while this one has not begun."""


# What the planner wants done


@dataclass(frozen=True, slots=True)
class SetRollout:
    """Change the rollout's state."""

    state: RolloutState
    reason: str | None
    """None keeps the reason there is."""


@dataclass(frozen=True, slots=True)
class SetWave:
    """Change a wave's state."""

    number: int
    state: WaveState
    reason: str = ""
    gates: tuple[GateResult, ...] | None = None
    promoted: bool = False


@dataclass(frozen=True, slots=True)
class SetExecution:
    """Change an execution's state."""

    device: str
    attempt: int
    state: ExecutionState
    code: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """Assign the release to a device."""

    device: str
    wave: int
    attempt: int


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Assign the release before to a device, or nothing where there was none."""

    device: str
    wave: int
    attempt: int
    previous_sequence: int | None


@dataclass(frozen=True, slots=True)
class Requeue:
    """Add another attempt after this one."""

    device: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RecordApproval:
    """Keep what a person decided about a wave, or about the start (wave 0)."""

    wave: int
    person: str
    approved: bool
    reason: str


Action = SetRollout | SetWave | SetExecution | Offer | TakeBack | Requeue | RecordApproval
