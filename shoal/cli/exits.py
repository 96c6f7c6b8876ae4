"""Exit codes of `shoal`, stable for scripts and CI.

| code | meaning |
|---|---|
| 0 | done; for `rollout wait` and `watch`: the rollout succeeded |
| 1 | refused: the controller or a check said no, the sentence says why |
| 2 | the command line was wrong |
| 3 | the rollout is paused and asks for a decision |
| 4 | the rollout was rolled back or aborted, or its rollback failed |
| 5 | what was waited for did not happen in time |
| 6 | the controller could not be reached |
"""

from __future__ import annotations

from shoal.errors import ShoalError

SUCCEEDED = 0
REFUSED = 1
PAUSED = 3
ROLLED_BACK = 4
TIMED_OUT = 5
UNREACHABLE = 6

_BY_CODE = {"wait-timeout": TIMED_OUT, "controller-unreachable": UNREACHABLE}
_BY_STATE = {
    "succeeded": SUCCEEDED,
    "paused": PAUSED,
    "aborted": ROLLED_BACK,
    "rolled_back": ROLLED_BACK,
    "rollback_failed": ROLLED_BACK,
}


def exit_code(error: ShoalError) -> int:
    """The exit code of a failed command."""
    return _BY_CODE.get(error.code, REFUSED)


def rollout_exit_code(state: str) -> int:
    """The exit code that says how a rollout ended."""
    return _BY_STATE.get(state, REFUSED)
