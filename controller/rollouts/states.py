"""The states of rollouts, waves and executions, and which may follow which. Pure.

rollout:   draft → running ⇄ paused → succeeded | aborted | rolling_back
                                      rolling_back → rolled_back | rollback_failed
wave:      pending → releasing → soaking → evaluating → passed | failed | inconclusive
execution: queued → offered → accepted → downloading → staged → verifying → activating
           → soaking → succeeded | failed | rejected | timed_out | cancelled
           → rolling_back → rolled_back
"""

from __future__ import annotations

from enum import StrEnum


class RolloutState(StrEnum):
    """Of a rollout."""

    DRAFT = "draft"
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
    ACTIVATING = "activating"
    SOAKING = "soaking"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


R, E = RolloutState, ExecutionState

FINAL_ROLLOUT = frozenset({R.SUCCEEDED, R.ABORTED, R.ROLLED_BACK, R.ROLLBACK_FAILED})
ACTIVE_ROLLOUT = frozenset({R.RUNNING, R.PAUSED, R.ROLLING_BACK})

UNDER_WAY = frozenset({E.ACCEPTED, E.DOWNLOADING, E.STAGED, E.VERIFYING, E.ACTIVATING, E.SOAKING})
"""The device works on it."""
ENDED = frozenset({E.SUCCEEDED, E.FAILED, E.REJECTED, E.TIMED_OUT, E.CANCELLED, E.ROLLED_BACK})
BAD = frozenset({E.FAILED, E.REJECTED, E.ROLLED_BACK})
"""The release did not stay on the device, and the device says why."""

_ORDER = (E.QUEUED, E.OFFERED, E.ACCEPTED, E.DOWNLOADING, E.STAGED, E.VERIFYING, E.ACTIVATING,
          E.SOAKING)  # fmt: skip
_RANK = {state: rank for rank, state in enumerate(_ORDER)}

VERBS: dict[str, frozenset[RolloutState]] = {
    "start": frozenset({R.DRAFT}),
    "pause": frozenset({R.RUNNING}),
    "resume": frozenset({R.PAUSED}),
    "promote": frozenset({R.RUNNING, R.PAUSED}),
    "abort": frozenset({R.DRAFT, R.RUNNING, R.PAUSED}),
    "rollback": frozenset({R.RUNNING, R.PAUSED, R.SUCCEEDED, R.ABORTED, R.ROLLBACK_FAILED}),
    "retry": frozenset({R.RUNNING, R.PAUSED}),
}
"""What people may ask for, and in which states."""


def follows(before: ExecutionState, reported: ExecutionState) -> bool:
    """Whether a device's report takes its execution on.

    Reports come at least once and may come late, so only steps forward count. Reality wins over
    a timer: a device that was given up may still report how it ended.
    """
    if before in (E.TIMED_OUT, E.CANCELLED):
        return reported in ENDED or reported in UNDER_WAY
    if before is E.SUCCEEDED:
        return reported is E.ROLLED_BACK
    if before in ENDED:
        return False
    if before is E.ROLLING_BACK:
        return reported in BAD
    return reported in ENDED or _RANK[reported] > _RANK[before]
