"""`shoal-agent doctor`: what is well, what is not, and what to do about it.

Each check looks at one thing and says a sentence; a failed one says the fix. They depend on
nothing but the configuration and the state folder, so they help most where nothing else works, and
run in a process of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from agent.config import AgentConfig, load_config
from shoal.errors import ShoalError


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    sentence: str
    fix: str = ""


Check = Callable[[AgentConfig], Finding]


class UnwellError(ShoalError):
    """A check failed; `fix` says what to do."""

    def __init__(self, sentence: str, fix: str) -> None:
        super().__init__(sentence)
        self.fix = fix


def examine(path: Path) -> list[Finding]:
    """Run every check; without a readable configuration there is only that to say."""
    from agent.doctor.checks import CHECKS

    try:
        config = load_config(path)
    except ShoalError as error:
        fix = "correct the file; shoal-agent check-config lists every mistake"
        return [Finding("configuration", False, error.sentence, fix)]
    found = [Finding("configuration", True, f"{path}: {len(config.models)} models bound")]
    return found + [_run(name, check, config) for name, check in CHECKS.items()]


def _run(name: str, check: Callable[[AgentConfig], str], config: AgentConfig) -> Finding:
    try:
        return Finding(name, True, check(config))
    except UnwellError as error:
        return Finding(name, False, error.sentence, error.fix)
    except ShoalError as error:
        return Finding(name, False, error.sentence, "see the sentence")
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}", "report this: a defect")
