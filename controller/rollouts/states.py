"""The states of rollouts, waves and executions, and which may follow which. Pure.

rollout:   draft → [awaiting_approval] → [scheduled] → running ⇄ paused
           → succeeded | aborted | rolling_back → rolled_back | rollback_failed
wave:      pending → releasing → soaking → evaluating → passed | failed | inconclusive
execution: queued → offered → accepted → downloading → staged → verifying → [shadowing]
           → activating → soaking → succeeded | failed | rejected | timed_out | cancelled
           → rolling_back → rolled_back
           succeeded → reverted

`docs/explanation/rollouts.md` has the same tables with their reasons; a test holds both together.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import combinations


class RolloutState(StrEnum):
    """Of a rollout."""

    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"


class WaveState(StrEnum):
    """Of a wave."""

    PENDING = "pending"
    RELEASING = "releasing"
    SOAKING = "soaking"
    EVALUATING = "evaluating"
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


class ExecutionState(StrEnum):
    """Of a device's part in a rollout."""

    QUEUED = "queued"
    OFFERED = "offered"
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    STAGED = "staged"
    VERIFYING = "verifying"
    SHADOWING = "shadowing"
    ACTIVATING = "activating"
    SOAKING = "soaking"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    REVERTED = "reverted"
    SUPERSEDED = "superseded"


R, W, E = RolloutState, WaveState, ExecutionState

FINAL_ROLLOUT = frozenset({R.SUCCEEDED, R.ABORTED, R.ROLLED_BACK, R.ROLLBACK_FAILED})
ACTIVE_ROLLOUT = frozenset({R.RUNNING, R.PAUSED, R.ROLLING_BACK})
"""It moves the model, or may any moment: one of a model at a time."""
WORKED_ON = ACTIVE_ROLLOUT | {R.SCHEDULED}
"""The engine looks at it."""
NOT_BEGUN = frozenset({R.DRAFT, R.AWAITING_APPROVAL, R.SCHEDULED})

_ORDER = (
    E.ACCEPTED, E.DOWNLOADING, E.STAGED, E.VERIFYING, E.SHADOWING, E.ACTIVATING, E.SOAKING
)  # fmt: skip
UNDER_WAY = frozenset(_ORDER)
"""The device works on it."""
ENDED = frozenset(
    {
        E.SUCCEEDED,
        E.FAILED,
        E.REJECTED,
        E.TIMED_OUT,
        E.CANCELLED,
        E.ROLLED_BACK,
        E.REVERTED,
        E.SUPERSEDED,
    }
)
BAD = frozenset({E.FAILED, E.REJECTED, E.ROLLED_BACK, E.REVERTED})
"""The release did not stay on the device, as it says, or as the digest shows that it runs."""

DEVICE, ENGINE, PERSON = "device", "engine", "person"
_AUTO = frozenset({ENGINE})
_BOTH = frozenset({ENGINE, PERSON})
_SAID = frozenset({DEVICE})
_ASKED = frozenset({PERSON})

ROLLOUT_STEPS: dict[tuple[RolloutState, RolloutState], frozenset[str]] = {
    (R.DRAFT, R.AWAITING_APPROVAL): _ASKED,
    (R.DRAFT, R.SCHEDULED): _ASKED,
    (R.DRAFT, R.RUNNING): _ASKED,
    (R.DRAFT, R.ABORTED): _ASKED,
    (R.AWAITING_APPROVAL, R.SCHEDULED): _ASKED,
    (R.AWAITING_APPROVAL, R.RUNNING): _ASKED,
    (R.AWAITING_APPROVAL, R.ABORTED): _ASKED,
    (R.SCHEDULED, R.RUNNING): _AUTO,
    (R.SCHEDULED, R.ABORTED): _ASKED,
    (R.RUNNING, R.PAUSED): _BOTH,
    (R.RUNNING, R.SUCCEEDED): _AUTO,
    (R.RUNNING, R.ABORTED): _ASKED,
    (R.RUNNING, R.ROLLING_BACK): _BOTH,
    (R.PAUSED, R.RUNNING): _ASKED,
    (R.PAUSED, R.ABORTED): _ASKED,
    (R.PAUSED, R.ROLLING_BACK): _BOTH,
    (R.SUCCEEDED, R.ROLLING_BACK): _ASKED,
    (R.ABORTED, R.ROLLING_BACK): _ASKED,
    (R.ROLLING_BACK, R.ROLLED_BACK): _AUTO,
    (R.ROLLING_BACK, R.ROLLBACK_FAILED): _AUTO,
    (R.ROLLBACK_FAILED, R.ROLLING_BACK): _ASKED,
}
"""(before, after) → who may cause it; what is not here never happens."""

WAVE_STEPS: dict[tuple[WaveState, WaveState], frozenset[str]] = {
    (W.PENDING, W.RELEASING): _AUTO,
    (W.PENDING, W.PASSED): _AUTO,
    (W.RELEASING, W.SOAKING): _AUTO,
    (W.RELEASING, W.PASSED): _ASKED,
    (W.RELEASING, W.FAILED): _AUTO,
    (W.RELEASING, W.INCONCLUSIVE): _AUTO,
    (W.SOAKING, W.EVALUATING): _AUTO,
    (W.SOAKING, W.RELEASING): _ASKED,
    (W.SOAKING, W.PASSED): _ASKED,
    (W.SOAKING, W.FAILED): _AUTO,
    (W.EVALUATING, W.RELEASING): _ASKED,
    (W.EVALUATING, W.PASSED): _BOTH,
    (W.EVALUATING, W.FAILED): _AUTO,
    (W.EVALUATING, W.INCONCLUSIVE): _AUTO,
    (W.INCONCLUSIVE, W.RELEASING): _ASKED,
    (W.INCONCLUSIVE, W.EVALUATING): _ASKED,
    (W.INCONCLUSIVE, W.PASSED): _ASKED,
    (W.INCONCLUSIVE, W.FAILED): _AUTO,
    (W.PASSED, W.FAILED): _AUTO,
    (W.PASSED, W.RELEASING): _ASKED,
    (W.FAILED, W.RELEASING): _ASKED,
    (W.FAILED, W.PASSED): _ASKED,
}

_ENDS_SAID = (E.SUCCEEDED, E.FAILED, E.REJECTED, E.ROLLED_BACK)
_TAKEN_BACK = (
    E.OFFERED, *_ORDER, E.SUCCEEDED, E.FAILED, E.REJECTED, E.TIMED_OUT, E.REVERTED
)  # fmt: skip

EXECUTION_STEPS: dict[tuple[ExecutionState, ExecutionState], frozenset[str]] = {
    (E.QUEUED, E.OFFERED): _AUTO,
    (E.QUEUED, E.CANCELLED): _BOTH,
    (E.QUEUED, E.ROLLING_BACK): _BOTH,
    (E.OFFERED, E.CANCELLED): _ASKED,
    (E.TIMED_OUT, E.CANCELLED): _ASKED,
    **{(before, E.SUPERSEDED): _ASKED for before in (E.QUEUED, E.OFFERED, E.TIMED_OUT)},
    (E.SUCCEEDED, E.ROLLED_BACK): _SAID,
    (E.SUCCEEDED, E.REVERTED): _AUTO,
    (E.REVERTED, E.SUCCEEDED): _SAID,
    (E.REVERTED, E.ROLLED_BACK): _SAID,
    (E.ROLLING_BACK, E.ROLLED_BACK): _AUTO | _SAID,
    (E.ROLLING_BACK, E.FAILED): _AUTO | _SAID,
    (E.ROLLING_BACK, E.REJECTED): _SAID,
    (E.ROLLING_BACK, E.CANCELLED): _AUTO,
    **{(E.OFFERED, after): _SAID for after in _ORDER},
    **dict.fromkeys(combinations(_ORDER, 2), _SAID),
    **{(before, E.TIMED_OUT): _AUTO for before in (E.OFFERED, *_ORDER)},
    **{
        (before, after): _SAID
        for before in (E.OFFERED, *_ORDER, E.TIMED_OUT)
        for after in _ENDS_SAID
    },
    **{(before, E.ROLLING_BACK): _BOTH for before in _TAKEN_BACK},
}

VERBS: dict[str, frozenset[RolloutState]] = {
    "start": frozenset({R.DRAFT}),
    "pause": frozenset({R.RUNNING}),
    "resume": frozenset({R.PAUSED}),
    "promote": frozenset({R.RUNNING, R.PAUSED}),
    "abort": frozenset({R.DRAFT, R.AWAITING_APPROVAL, R.SCHEDULED, R.RUNNING, R.PAUSED}),
    "rollback": frozenset({R.RUNNING, R.PAUSED, R.SUCCEEDED, R.ABORTED, R.ROLLBACK_FAILED}),
    "retry": frozenset({R.RUNNING, R.PAUSED}),
    "approve": frozenset({R.AWAITING_APPROVAL, R.RUNNING, R.PAUSED}),
    "reject": frozenset({R.AWAITING_APPROVAL, R.RUNNING, R.PAUSED}),
}
"""What people may ask for, and in which states."""


def follows(before: ExecutionState, reported: ExecutionState) -> bool:
    """Whether a device's report takes its execution on.

    Reports come at least once and may come late, so only steps forward count, and only those that
    are the device's to make. Reality wins over a timer: a device that was given up may still
    report how it ended, but not begin again, or it could hold a wave for ever.
    """
    return DEVICE in EXECUTION_STEPS.get((before, reported), ())
