"""A rollout kept in memory as the store keeps it, and devices that do as a test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from controller.rollouts.approvals import missing
from controller.rollouts.commands import decide
from controller.rollouts.planner import plan
from controller.rollouts.retries import will_retry
from controller.rollouts.schedule import BUSY, opens_in
from controller.rollouts.states import (
    BAD,
    EXECUTION_STEPS,
    ROLLOUT_STEPS,
    WAVE_STEPS,
    ExecutionState,
    RolloutState,
    WaveState,
    follows,
)
from controller.rollouts.values import (
    Action,
    Approval,
    ExecutionView,
    GateResult,
    Offer,
    Options,
    RecordApproval,
    Requeue,
    RolloutView,
    SetExecution,
    SetRollout,
    SetWave,
    TakeBack,
    WaveView,
)

E, R, W = ExecutionState, RolloutState, WaveState
OLD, NEW = 1, 2
VERSIONS = {None: None, OLD: "1", NEW: "2"}
GATES = {
    "good": (GateResult("enough data", "pass", "enough"), GateResult("shift", "pass", "near")),
    "unjudged": (GateResult("enough data", "pass", "enough"), GateResult("s", "not-judged", "-")),
    "open": (GateResult("enough data", "inconclusive", "too little data"),),
    "bad": (GateResult("enough data", "pass", "enough"), GateResult("shift", "fail", "far")),
    "none": (),
}


class Ledger:
    """Applies actions to a view by the rules of `store`, holding every step to the tables."""

    def __init__(
        self,
        sizes: list[int],
        options: Options,
        newcomers: frozenset[int],
        approved_waves: frozenset[int],
    ) -> None:
        self.now_ms = 1_000_000
        self.gates = "good"
        names = [(f"gw-{i}", i) for i in range(sum(sizes))]
        cut = iter(names)
        self.runs: dict[str, int | None] = {
            name: None if i in newcomers else OLD for name, i in names
        }
        self.view = RolloutView(
            rollout="r-1",
            model="m",
            version="2",
            release_sequence=NEW,
            state=R.DRAFT,
            options=options,
            waves=tuple(
                WaveView(n, W.PENDING, needs_approval=n in approved_waves)
                for n in range(1, len(sizes) + 1)
            ),
            executions=tuple(
                ExecutionView(name, number, 1, E.QUEUED, self.now_ms)
                for number, size in enumerate(sizes, start=1)
                for name, _ in [next(cut) for _ in range(size)]
            ),
        )

    # what happens

    def seen(self) -> RolloutView:
        """The view as the engine reads it."""
        executions = tuple(
            changed(
                one,
                active_sequence=self.runs[one.device],
                active_version=VERSIONS[self.runs[one.device]],
                digest_agrees=self.runs[one.device] == NEW,
            )
            for one in self.view.executions
        )
        return replace(self.view, executions=executions, gates=GATES[self.gates])

    def tick(self) -> list[Action]:
        """Plan and apply until nothing is left to do; return everything that was done."""
        done: list[Action] = []
        for _ in range(20):
            view = self.seen()
            actions = plan(view, self.now_ms)
            if not actions:
                return done
            _check_plan(view, actions, self.now_ms)
            self.apply(actions, "engine")
            self._check_repeatable(actions)
            done += actions
        raise AssertionError(f"the planner never comes to rest: {done[-4:]}")

    def command(self, verb: str, person: str = "ann") -> list[Action]:
        """What a person asks; raises `ConflictError`."""
        actions = decide(self.seen(), verb, person, "because")
        self.apply(actions, "person")
        return actions

    def report(self, device: str, state: ExecutionState) -> None:
        """The device says how far its newest attempt is."""
        one = self.execution(device)
        if not follows(one.state, state):
            return
        if state is E.SUCCEEDED:
            after = changed(one, reported_success=True)
            if one.state is E.OFFERED:
                after = changed(after, state=E.SOAKING, updated_ms=self.now_ms)
        else:
            after = changed(one, state=state, updated_ms=self.now_ms)
        self._put(after)

    def execution(self, device: str) -> ExecutionView:
        """The newest attempt of a device."""
        return next(one for one in self.view.executions if one.device == device)

    # what is recorded

    def apply(self, actions: list[Action], who: str) -> None:
        """Record actions, checking each step against the tables."""
        for action in actions:
            match action:
                case SetRollout():
                    self._check(ROLLOUT_STEPS, self.view.state, action.state, who)
                    self._set_rollout(action)
                case RecordApproval():
                    self._record(action)
                case SetWave():
                    self._set_wave(action, who)
                case SetExecution():
                    one = self._attempt(action)
                    actor = "device" if action.state is E.SUCCEEDED else who
                    self._check(EXECUTION_STEPS, one.state, action.state, actor)
                    self._put(changed(one, state=action.state, updated_ms=self.now_ms))
                case Offer():
                    self._offer(action, who)
                case TakeBack():
                    one = self._attempt(action)
                    back = action.previous_sequence is not None
                    self._put(changed(one, assigned_rollback=back, assigned_update=False))
                case Requeue():
                    one = self._attempt(action)
                    again = changed(
                        one,
                        attempt=one.attempt + 1,
                        state=E.QUEUED,
                        updated_ms=self.now_ms,
                        reported_success=False,
                    )
                    self._put(again)

    def _set_rollout(self, to: SetRollout) -> None:
        reason = self.view.reason if to.reason is None else to.reason
        self.view = replace(self.view, state=to.state, reason=reason)

    def _record(self, one: RecordApproval) -> None:
        given = {(x.wave, x.person) for x in self.view.approvals} - {(one.wave, one.person)}
        if one.approved:
            given.add((one.wave, one.person))
        self.view = replace(self.view, approvals=tuple(Approval(*x) for x in sorted(given)))

    def _offer(self, offer: Offer, who: str) -> None:
        one = self._attempt(offer)
        self._check(EXECUTION_STEPS, one.state, E.OFFERED, who)
        runs = self.runs[one.device]
        previous = one.previous_sequence
        if offer.attempt == 1 and runs != NEW:
            previous = runs
        self._put(
            changed(
                one,
                state=E.OFFERED,
                updated_ms=self.now_ms,
                previous_sequence=previous,
                assigned_update=True,
                assigned_rollback=False,
            )
        )

    def _set_wave(self, to: SetWave, who: str) -> None:
        wave = self.view.waves[to.number - 1]
        self._check(WAVE_STEPS, wave.state, to.state, who)
        after = replace(wave, state=to.state, promoted=wave.promoted or to.promoted)
        if to.state is W.RELEASING:
            after = replace(after, released_ms=self.now_ms, soaking_ms=None, evaluating_ms=None)
        elif to.state is W.SOAKING:
            after = replace(after, soaking_ms=self.now_ms)
        elif to.state is W.EVALUATING:
            after = replace(after, evaluating_ms=self.now_ms)
        elif after.released_ms is None:
            after = replace(after, released_ms=self.now_ms)
        waves = list(self.view.waves)
        waves[to.number - 1] = after
        self.view = replace(self.view, waves=tuple(waves))

    def _attempt(self, action: Offer | TakeBack | SetExecution | Requeue) -> ExecutionView:
        one = self.execution(action.device)
        assert one.attempt == action.attempt, f"{action} is not of the newest attempt"
        return one

    def _put(self, after: ExecutionView) -> None:
        executions = tuple(
            after if one.device == after.device else one for one in self.view.executions
        )
        self.view = replace(self.view, executions=executions)

    def _check_repeatable(self, actions: list[Action]) -> None:
        """A tick that is applied again after a crash leaves everything as it is."""
        before = self.view
        for action in actions:
            if isinstance(action, SetWave):
                self._set_wave_again(action)
            elif isinstance(action, SetRollout):
                self._set_rollout(action)
        assert self.view == before

    def _set_wave_again(self, action: SetWave) -> None:
        assert self.view.waves[action.number - 1].state is action.state

    @staticmethod
    def _check(steps: dict, before: object, after: object, who: str) -> None:  # type: ignore[type-arg]  # three tables of three enums
        if before is not after:
            assert who in steps.get((before, after), ()), f"{before} → {after} by {who}"


def _check_plan(view: RolloutView, actions: list[Action], now_ms: int) -> None:
    """What must hold of every plan, whatever went before."""
    offers = [one for one in actions if isinstance(one, Offer)]
    if offers:
        assert view.state is R.RUNNING, f"a {view.state} rollout offers"
        for offer in offers:
            assert all(w.state is W.PASSED for w in view.waves[: offer.wave - 1]), offer
            assert view.waves[offer.wave - 1].promoted or not missing(view, offer.wave)
        assert opens_in(view.options, now_ms) == 0
        busy = sum(one.state in BUSY for one in view.executions)
        assert busy + len(offers) <= (view.options.max_under_way or 99)
    for action in actions:
        if isinstance(action, SetWave) and action.state is W.PASSED:
            _check_passed(view, view.waves[action.number - 1])
        if isinstance(action, SetWave) and action.state is W.FAILED:
            _check_failed(view, actions)


def _check_passed(view: RolloutView, wave: WaveView) -> None:
    members = [one for one in view.executions if one.wave == wave.number]
    if not members:
        return
    assert wave.state is W.EVALUATING
    assert view.gates
    assert all(one.verdict in ("pass", "not-judged") for one in view.gates)
    bad = sum(one.state in BAD and not will_retry(view, one) for one in members)
    assert wave.promoted or bad <= view.options.max_failed_ratio * len(members)


def _check_failed(view: RolloutView, actions: list[Action]) -> None:
    if view.options.on_failure == "pause":
        assert view.state is R.PAUSED or any(
            isinstance(one, SetRollout) and one.state is R.PAUSED for one in actions
        )
        return
    assert SetRollout(R.ROLLING_BACK, None).state in [
        one.state for one in actions if isinstance(one, SetRollout)
    ]
    back = {one.device for one in actions if isinstance(one, TakeBack)}
    for one in view.executions:
        had = one.state is not E.CANCELLED and (one.state is not E.QUEUED or one.attempt > 1)
        assert (one.device in back) == had, one


@pytest.fixture(scope="session")
def make_ledger() -> Callable[..., Ledger]:
    """`make_ledger([1, 3], **options)`: a draft whose waves have so many devices."""

    def make(
        sizes: list[int],
        newcomers: frozenset[int] = frozenset(),
        approved_waves: frozenset[int] = frozenset(),
        **options: object,
    ) -> Ledger:
        return Ledger(sizes, Options(**options), newcomers, approved_waves)  # type: ignore[arg-type]  # any option

    return make
