"""When the golden samples of what answers are due again: daily, and after another runtime came."""

from __future__ import annotations

import contextlib

from msgspec import Struct

from agent.ports import RuntimeFacts, StagedRelease
from agent.store import StateStore, StateStoreError

DAY_SECONDS = 86400.0


class GoldenMark(Struct, frozen=True):
    """The last time that golden samples were run."""

    manifest: str
    runtime: str
    checked_ms: int


def is_due(
    mark: GoldenMark | None, manifest: str, runtime: str, now_ms: int, every_seconds: float
) -> bool:
    """Whether to run them: never run for this release and runtime, or too long ago."""
    if mark is None or (mark.manifest, mark.runtime) != (manifest, runtime):
        return True
    return not 0 <= now_ms - mark.checked_ms < every_seconds * 1000


class GoldenLog:
    """Remembers when the golden samples of one model ran; reboots included."""

    def __init__(self, model: str, store: StateStore, every_seconds: float) -> None:
        self._key = f"golden-{model}"
        self._store = store
        self._mark = store.note(self._key, GoldenMark)
        self._every_seconds = every_seconds

    def is_due(self, release: StagedRelease, facts: RuntimeFacts, now_ms: int) -> bool:
        """Whether the samples of a release that answers are to be run."""
        if release.manifest.golden is None:
            return False
        manifest = release.manifest_sha256
        return is_due(self._mark, manifest, _name(facts), now_ms, self._every_seconds)

    def note(self, release: StagedRelease, facts: RuntimeFacts, now_ms: int) -> None:
        """They have been run."""
        self._mark = GoldenMark(release.manifest_sha256, _name(facts), now_ms)
        with contextlib.suppress(StateStoreError):  # then they run again after the next start
            self._store.save_note(self._key, self._mark)


def _name(facts: RuntimeFacts) -> str:
    return f"{facts.runtime} {facts.version} {facts.kernels}"
