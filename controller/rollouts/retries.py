"""Attempts by themselves: who is offered the release once more, and when. Pure.

A device that failed for a reason that may pass (`failed`; what is wrong for good is `rejected`), or
that was not reached in time, is tried again until `max_attempts`; then it sits out. The time
between doubles, up to a cap, and is drawn from the second half of it by a hash of rollout, device
and attempt, so that devices that failed together do not come back together.
"""

from __future__ import annotations

import hashlib

from controller.rollouts.states import ExecutionState
from controller.rollouts.values import ExecutionView, RolloutView

RETRIED = frozenset({ExecutionState.FAILED, ExecutionState.TIMED_OUT})


def will_retry(view: RolloutView, one: ExecutionView) -> bool:
    """Whether a device has ended for now, and gets another attempt by itself."""
    return one.state in RETRIED and one.attempt < view.options.max_attempts


def retry_at_ms(view: RolloutView, one: ExecutionView) -> int:
    """When the next attempt begins."""
    return one.updated_ms + int(wait_seconds(view, one) * 1000)


def wait_seconds(view: RolloutView, one: ExecutionView) -> float:
    """How long after an attempt ended the next one begins."""
    options = view.options
    longest = min(options.retry_base_seconds * 2.0 ** (one.attempt - 1), options.retry_cap_seconds)
    key = f"{view.rollout}|{one.device}|{one.attempt}".encode()
    drawn = int.from_bytes(hashlib.sha256(key).digest()[:4]) / 2**32
    return longest * (0.5 + 0.5 * drawn)
