"""Counts the workers that a committed release has lost, in the state store: reboots included."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from agent.crashloop import CrashHistory, CrashLimits, add_crash, is_loop
from agent.slots import ReleaseRef
from agent.store import StateStore, StateStoreError


class CrashCounter:
    """The crashes of one model."""

    def __init__(
        self, model: str, store: StateStore, limits: CrashLimits, now_ms: Callable[[], int]
    ) -> None:
        self._key = f"crashes-{model}"
        self._store = store
        self._history = store.note(self._key, CrashHistory) or CrashHistory()
        self._now_ms = now_ms
        self.limits = limits

    def add(self, release: ReleaseRef) -> bool:
        """Count a lost worker; whether the release is to be given up."""
        now_ms = self._now_ms()
        self._save(add_crash(self._history, release.manifest_sha256, now_ms, self.limits))
        return is_loop(self._history, self.limits)

    def clear(self) -> None:
        """Another release is committed, or the same anew."""
        if self._history.times_ms:
            self._save(CrashHistory())

    def _save(self, history: CrashHistory) -> None:
        self._history = history
        with contextlib.suppress(StateStoreError):  # then only this run remembers
            self._store.save_note(self._key, history)
