"""Slots: whatever happens in whatever order, the committed release is only replaced by a commit."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.slots import (
    FINAL,
    MAX_PROBATION_BOOTS,
    TRANSITIONS,
    Candidate,
    Happening,
    IllegalStepError,
    ReleaseRef,
    Slots,
    Stage,
    assign,
    find_here,
    give_up,
    is_news,
    needs_probation,
    refusal,
    restart,
    step,
)
from shoal.protocol.desired import Assignment


def _assignment(number=2, **changes) -> Assignment:
    values = {
        "model": "pump",
        "version": f"{number}.0.0",
        "release_sequence": number,
        "manifest_sha256": f"{number:064x}",
        "manifest_length": 100,
        "rollout": "r1",
        **changes,
    }
    return Assignment(**values)


def _release(number=1) -> ReleaseRef:
    return ReleaseRef(f"{number}.0.0", number, f"{number:064x}", "int8")


def _slots(stage: Stage, boots=0) -> Slots:
    early = {Stage.ASSIGNED, Stage.DOWNLOADING, Stage.VERIFIED, Stage.COMPATIBLE}
    release = None if stage in early else _release(2)
    candidate = Candidate(_assignment(), stage, release, boots)
    return Slots("pump", _release(1), _release(0), candidate)


PATH = [
    Happening.FETCH_STARTED,
    Happening.VERIFIED,
    Happening.FITS,
    Happening.FETCHED,
    Happening.LOADED,
    Happening.WARMED,
    Happening.GOLDEN_PASSED,
    Happening.SHADOW_STARTED,
    Happening.SWITCHED,
]
STAGES = [
    Stage.ASSIGNED,
    Stage.DOWNLOADING,
    Stage.VERIFIED,
    Stage.COMPATIBLE,
    Stage.STAGED,
    Stage.LOADED,
    Stage.WARM,
    Stage.GOLDEN,
    Stage.SHADOW,
    Stage.PROBATION,
]
BRINGS_A_RELEASE = {Happening.FETCHED, Happening.FOUND}


def _walk(slots: Slots, *happenings: Happening, number=2) -> Slots:
    for one in happenings:
        slots = step(slots, one, release=_release(number) if one in BRINGS_A_RELEASE else None)
    return slots


def test_an_update_goes_all_the_way():
    slots = assign(Slots("pump", _release(1)), _assignment())
    seen = [slots.candidate.stage]
    for one in [*PATH, Happening.HEALTHY]:
        slots = _walk(slots, one)
        seen.append(slots.candidate.stage)
    assert seen == [*STAGES, Stage.COMMITTED]
    assert [stage.value for stage in seen] == [
        "assigned",
        "downloading",
        "verified",
        "compatible",
        "staged",
        "loaded",
        "warm",
        "golden",
        "shadow",
        "probation",
        "committed",
    ]
    assert (slots.active, slots.last_good) == (_release(2), _release(1))


def test_the_shadow_run_may_be_left_out():
    slots = assign(Slots("pump", _release(1)), _assignment())
    slots = _walk(slots, *PATH[:7], Happening.SWITCHED)
    assert slots.candidate.stage is Stage.PROBATION


def test_a_rollback_commits_without_fetching_or_probation():
    slots = assign(Slots("pump", _release(3), _release(2)), _assignment(2, intent="rollback"))
    assert find_here(slots, slots.candidate.assignment) == _release(2)
    assert not needs_probation(slots, slots.candidate.assignment)
    slots = _walk(slots, Happening.FOUND, *PATH[4:7], Happening.HEALTHY)
    assert slots.candidate.stage is Stage.COMMITTED
    assert (slots.active, slots.last_good) == (_release(2), _release(3))


def test_what_failed_keeps_its_words():
    slots = step(_slots(Stage.PROBATION), Happening.UNHEALTHY, code="latency", sentence="slow")
    assert slots.candidate.stage is Stage.ROLLED_BACK
    assert (slots.candidate.code, slots.candidate.sentence) == ("latency", "slow")
    assert slots.active == _release(1)


def test_committing_the_active_release_again_keeps_the_last_good_one():
    slots = assign(Slots("pump", _release(2), _release(1)), _assignment(2, attempt=1))
    slots = _walk(slots, *PATH, Happening.HEALTHY)
    assert (slots.active, slots.last_good) == (_release(2), _release(1))


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("happening", Happening)
def test_every_step_not_in_the_table_is_illegal(stage, happening):
    if (stage, happening) in TRANSITIONS:
        assert step(_slots(stage), happening).candidate.stage is TRANSITIONS[stage, happening]
    else:
        with pytest.raises(IllegalStepError, match=f"{happening.value} cannot happen in"):
            step(_slots(stage), happening)


@pytest.mark.parametrize("happening", Happening)
def test_nothing_happens_without_a_candidate(happening):
    with pytest.raises(IllegalStepError, match="no candidate"):
        step(Slots("pump", _release(1)), happening)


def test_every_stage_under_way_can_fail_and_no_final_one_moves():
    for stage in Stage:
        if stage in FINAL:
            assert not any(origin is stage for origin, _ in TRANSITIONS)
        else:
            assert TRANSITIONS[stage, Happening.FAILED] in {Stage.REFUSED, Stage.ROLLED_BACK}


@pytest.mark.parametrize("stage", Stage)
def test_a_restart_redoes_continues_or_leaves_by_stage(stage):
    before = _slots(stage)
    after = restart(before)
    assert (after.active, after.last_good) == (before.active, before.last_good)
    if stage in FINAL:
        assert after == before
    elif stage is Stage.PROBATION:
        assert after.candidate == msgspec.structs.replace(before.candidate, boots=1)
        assert after.running == _release(2)
    else:
        assert after.candidate == Candidate(_assignment(), Stage.ASSIGNED)


def test_a_candidate_that_keeps_restarting_the_agent_is_given_up():
    slots = _slots(Stage.PROBATION)
    for _ in range(MAX_PROBATION_BOOTS - 1):
        slots = restart(slots)
        assert slots.candidate.stage is Stage.PROBATION
    slots = restart(slots)
    assert slots.candidate.stage is Stage.ROLLED_BACK
    assert slots.candidate.code == "crash-loop"
    assert slots.running == slots.active == _release(1)


def test_a_restart_of_empty_slots_is_nothing():
    assert restart(Slots("pump")) == Slots("pump")


@pytest.mark.parametrize("stage", Stage)
def test_the_candidate_answers_only_in_probation(stage):
    assert _slots(stage).running == _release(2 if stage is Stage.PROBATION else 1)


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({}, False),
        ({"wave": 3, "probation_seconds": 5.0}, False),
        ({"attempt": 1}, True),
        ({"rollout": "r2"}, True),
        ({"intent": "rollback"}, True),
        ({"manifest_sha256": "f" * 64}, True),
    ],
)
@pytest.mark.parametrize("stage", Stage)
def test_the_same_assignment_is_no_news_in_any_stage(stage, change, news):
    assert is_news(_slots(stage), _assignment(**change)) is news


def test_the_first_assignment_is_news():
    assert is_news(Slots("pump"), _assignment())


@pytest.mark.parametrize(
    ("sequence", "intent", "code"),
    [
        (4, "update", "release-rollback"),
        (5, "update", None),
        (6, "update", None),
        (4, "rollback", None),
    ],
)
def test_going_back_has_to_be_asked_for(sequence, intent, code):
    found = refusal(Slots("pump", _release(5)), _assignment(sequence, intent=intent))
    assert (found and found[0]) == code


def test_nothing_is_refused_before_the_first_commit():
    assert refusal(Slots("pump"), _assignment(1)) is None


class RandomLife(RuleBasedStateMachine):
    """Any happenings, assignments and power cuts; slots are stored and read again each time."""

    def __init__(self):
        super().__init__()
        self.slots = Slots("pump")
        self.committed = []

    def _store(self, slots):
        self.slots = msgspec.json.decode(msgspec.json.encode(slots), type=Slots)
        assert self.slots == slots

    @rule(number=st.integers(1, 6), intent=st.sampled_from(["update", "rollback"]))
    def assign(self, number, intent):
        self._store(assign(self.slots, _assignment(number, intent=intent)))

    @rule(happening=st.sampled_from(Happening))
    def happen(self, happening):
        candidate = self.slots.candidate
        number = candidate.assignment.release_sequence if candidate else 0
        legal = candidate is not None and (candidate.stage, happening) in TRANSITIONS
        try:
            after = _walk(self.slots, happening, number=number)
        except IllegalStepError:
            assert not legal
            return
        assert legal
        if after.candidate.stage is Stage.COMMITTED:
            self.committed.append(_release(number))
        self._store(after)

    @rule()
    def go_on(self):
        """The next step of a good update, so that walks get far."""
        stage = self.slots.candidate.stage if self.slots.candidate else None
        if stage in STAGES:
            self.happen([*PATH, Happening.HEALTHY][STAGES.index(stage)])

    @rule()
    def crash_loop(self):
        if self.slots.active is None or self.slots.candidate.stage is Stage.PROBATION:
            return
        before = self.slots
        self._store(give_up(before, "too many crashes"))
        if before.last_good is not None:
            assert self.slots.active == before.last_good
            self.committed = [before.last_good]
        else:
            assert self.slots.stopped
            assert self.slots.active == before.active

    @rule()
    def power_cut(self):
        self._store(restart(self.slots))

    @invariant()
    def active_is_what_was_committed_last(self):
        assert self.slots.active == (self.committed[-1] if self.committed else None)

    @invariant()
    def last_good_was_committed_before_and_is_another(self):
        earlier = [one for one in self.committed[:-1] if one != self.slots.active]
        assert self.slots.last_good == (earlier[-1] if earlier else None)

    @invariant()
    def what_runs_is_active_or_in_probation(self):
        candidate = self.slots.candidate
        on_trial = candidate is not None and candidate.stage is Stage.PROBATION
        active = None if self.slots.stopped else self.slots.active
        assert self.slots.running == (candidate.release if on_trial else active)

    @invariant()
    def a_committed_release_can_always_run(self):
        assert not self.committed or self.slots.stopped or self.slots.running is not None


RandomLife.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_random_life = RandomLife.TestCase


@pytest.mark.parametrize("stage", Stage)
def test_restarts_come_to_rest(stage):
    """However often the agent starts, a candidate is redone from the beginning or given up."""
    slots = _slots(stage)
    for _ in range(MAX_PROBATION_BOOTS):
        slots = restart(slots)
    assert slots == restart(slots)


def test_state_stored_by_another_version_of_the_agent_begins_its_candidate_again():
    """The first agents had one stage "verifying" where there are three now, and no `stopped`."""
    document = msgspec.json.decode(msgspec.json.encode(_slots(Stage.WARM)))
    document["candidate"]["stage"] = "verifying"
    del document["stopped"]
    slots = msgspec.convert(document, Slots)
    assert (slots.active, slots.last_good) == (_release(1), _release(0))
    assert restart(slots).candidate == Candidate(_assignment(), Stage.ASSIGNED)


def test_a_committed_release_that_crashes_too_often_gives_way_to_the_one_before():
    slots = give_up(_slots(Stage.COMMITTED), "5 workers lost")
    assert (slots.active, slots.last_good, slots.stopped) == (_release(0), None, "")
    assert (slots.candidate.stage, slots.candidate.code) == (Stage.ROLLED_BACK, "crash-loop")
    assert not is_news(slots, _assignment())


def test_without_one_before_it_stops_until_the_next_commit():
    slots = give_up(Slots("pump", _release(1)), "5 workers lost")
    assert (slots.active, slots.stopped, slots.running) == (_release(1), "5 workers lost", None)
    assert restart(slots) == slots
    slots = _walk(assign(slots, _assignment(1)), Happening.FOUND, *PATH[4:7], number=1)
    assert step(slots, Happening.HEALTHY).running == _release(1)
