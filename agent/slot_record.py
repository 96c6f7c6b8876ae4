"""What is stored and said of one model's slots: each step is stored before its effect.

A state folder that cannot be written is told of, and whoever may go on without it does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from agent import slots as rules
from agent.slots import Happening, ReleaseRef, Slots, Stage
from agent.store import StateStore, StateStoreError
from agent.telling import Teller


class SlotRecord:
    """The slots of one model, and what is wrong with it."""

    def __init__(
        self, model: str, store: StateStore, teller: Teller, on_change: Callable[[], None]
    ) -> None:
        self._store = store
        self._on_change = on_change
        self.teller = teller
        self.slots = store.slots(model)
        self.trouble = ""
        """Why nothing, or not everything, is answered: the device is failing."""
        self.degraded = ""
        """What is wrong although everything is answered."""

    @property
    def in_probation(self) -> bool:
        """Whether a candidate is being watched."""
        return self._stage() is Stage.PROBATION

    @property
    def updating(self) -> bool:
        """Whether a candidate is under way."""
        stage = self._stage()
        return stage is not None and stage not in rules.FINAL

    def step(
        self,
        happening: Happening,
        *,
        release: ReleaseRef | None = None,
        code: str = "",
        sentence: str = "",
    ) -> None:
        """Store that something happened to the candidate."""
        self.save(rules.step(self.slots, happening, release=release, code=code, sentence=sentence))

    def save(self, slots: Slots) -> None:
        """Store the slots, or raise `StateStoreError` and keep those before."""
        self._store.save_slots(slots)
        self.slots = slots
        self._on_change()

    @contextlib.contextmanager
    def forgiving(self) -> Iterator[None]:
        """Go on with what runs when a step cannot be stored."""
        try:
            yield
        except StateStoreError as error:
            self.tell_store(error)

    def tell(self, state: str, code: str, sentence: str, **numbers: float) -> None:
        """Report how far the candidate's execution has come."""
        self.teller.execution(self.slots.candidate, state, code, sentence, **numbers)

    def tell_store(self, error: StateStoreError) -> None:
        """Report that something could not be stored."""
        running = self.slots.running
        self.teller.slot(error.code, error.sentence, running.version if running else "")
        self.set_degraded(error.sentence)

    def set_trouble(self, sentence: str) -> None:
        """Say why the device is failing, "" when it no longer is."""
        if sentence != self.trouble:
            self.trouble = sentence
            self._on_change()

    def set_degraded(self, sentence: str) -> None:
        """Say what is wrong although everything is answered."""
        if sentence != self.degraded:
            self.degraded = sentence
            self._on_change()

    def _stage(self) -> Stage | None:
        return self.slots.candidate.stage if self.slots.candidate else None
