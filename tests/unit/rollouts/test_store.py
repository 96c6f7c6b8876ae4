"""The store does to the database what the ledger does in memory, over random histories."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import msgspec
import pytest
from msgspec.structs import replace as changed
from sqlalchemy import delete, func, insert, select

from controller import schema
from controller.database import create_tables, open_engine, reading, writing
from controller.director import mark_dirty, sign_pending
from controller.errors import ConflictError
from controller.ingest.write import upsert
from controller.rollouts import recording, reports, store
from controller.rollouts.commands import decide
from controller.rollouts.planner import plan
from controller.rollouts.states import VERBS, ExecutionState, RolloutState
from shoal.protocol.desired import decode_desired
from shoal.protocol.envelope import decode_envelope
from shoal.signing import FileSigner

E = ExecutionState
REPORTS = [*E, *[E.SUCCEEDED] * 10]
VERB_CHOICES = [*VERBS, *["resume", "promote", "retry"] * 3]


class Stored:
    """The rollout of a ledger, in a database."""

    def __init__(self, engine, ledger):
        self.engine = engine
        view = ledger.view
        with writing(engine) as connection:
            connection.execute(insert(schema.releases).values(
                model="m", sequence=2, version="2", manifest_sha256="d" * 64, manifest_length=1,
                manifest={"probation": {"seconds": 0.0}}, envelope=b"", signed_by=[],
                published_ms=1, published_by="ann",
            ))  # fmt: skip
            connection.execute(insert(schema.rollouts).values(
                rollout="r-1", model="m", release_sequence=2, version="2", selector="*",
                state=view.state, options=msgspec.to_builtins(view.options), excluded=[],
                created_ms=1, created_by="ann", updated_ms=1,
            ))  # fmt: skip
            for wave in view.waves:
                connection.execute(insert(schema.waves).values(
                    rollout="r-1", number=wave.number, name="w", state=wave.state, size=1, gates=[],
                    needs_approval=wave.needs_approval,
                ))  # fmt: skip
            for one in view.executions:
                connection.execute(insert(schema.executions).values(
                    rollout="r-1", device=one.device, attempt=1, wave=one.wave, state=one.state,
                    updated_ms=one.updated_ms,
                ))  # fmt: skip
        for device, sequence in ledger.runs.items():
            self.run(device, sequence)

    def run(self, device, sequence):
        with writing(self.engine) as connection:
            m = schema.device_models
            if sequence is None:
                connection.execute(delete(m).where(m.c.device == device))
                return
            manifest = "d" * 64 if sequence == 2 else "0" * 64
            values = {
                "active_sequence": sequence,
                "active_version": str(sequence),
                "active_manifest": manifest,
            }
            upsert(connection, m, {"device": device, "model": "m"}, values)

    def report(self, device, state, now_ms):
        with writing(self.engine) as connection:
            attempt = self.view(connection, device).attempt
            for number in {attempt, max(attempt - 1, 1)}:  # a late one of the attempt before
                connection.execute(insert(schema.events).values(
                    device=device, ts_ms=1, received_ms=1, kind="execution", code="c",
                    severity="info", sentence="", model="m", rollout="r-1", attempt=number,
                    data={"state": state.value, "intent": "update"},
                ))  # fmt: skip
            assert reports.has_reports(connection)
            reports.apply_reports(connection, now_ms)
            assert not reports.has_reports(connection)

    def view(self, connection, device):
        view = store.read_view(connection, "r-1")
        return next(one for one in view.executions if one.device == device)

    def tick(self, gates, now_ms):
        while True:
            with writing(self.engine) as connection:
                view = replace(store.read_view(connection, "r-1"), gates=gates)
                actions = plan(view, now_ms)
                slim = replace(store.read_to_plan(connection, "r-1"), gates=gates)
                assert plan(slim, now_ms) == actions, "what is left out would count"
                if not actions:
                    return
                recording.carry_out(connection, view, actions, now_ms)

    def command(self, verb, now_ms, person="ann"):
        with writing(self.engine) as connection:
            view = store.read_view(connection, "r-1")
            recording.carry_out(connection, view, decide(view, verb, person, "because"), now_ms)


@pytest.fixture
def engine(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'shoal.sqlite'}")
    create_tables(engine)
    yield engine
    engine.dispose()


def _same(stored, ledger):
    with reading(stored.engine) as connection:
        found = store.read_view(connection, "r-1")
    plain = tuple(changed(one, sentence="") for one in found.executions)
    found = replace(found, executions=plain, reason=ledger.view.reason)  # it has sentences, too
    assert found == replace(ledger.seen(), gates=())


@pytest.mark.parametrize("seed", range(6))
def test_the_store_records_what_the_plan_says(engine, make_ledger, seed):
    random = Random(seed)
    ledger = make_ledger(
        [1, random.randint(0, 3), 3],
        frozenset({random.randrange(8)}),
        frozenset({random.randrange(1, 4)}),
        on_failure=random.choice(["rollback", "pause"]),
        max_failed_ratio=0.5,
        approvals=random.choice([0, 0, 1, 2]),
        max_attempts=random.choice([1, 3]),
    )
    stored = Stored(engine, ledger)
    devices = list(ledger.runs)
    _command(stored, ledger, "start")
    for _ in range(40):
        device = random.choice(devices)
        match random.choice(["report", "report", "run", "wait", "wait", "verb", "gates"]):
            case "report":
                state = random.choice(REPORTS)
                if state is E.SUCCEEDED:
                    ledger.runs[device] = 2
                    stored.run(device, 2)
                ledger.report(device, state)
                stored.report(device, state, ledger.now_ms)
            case "run":
                ledger.runs[device] = random.choice([None, 1, 2])
                stored.run(device, ledger.runs[device])
            case "wait":
                ledger.now_ms += random.choice([1000, 700_000, 4_000_000])
            case "verb":
                _command(stored, ledger, random.choice(VERB_CHOICES), random.choice("ab"))
            case "gates":
                ledger.gates = random.choice(["good", "good", "open", "bad"])
        ledger.tick()
        stored.tick(ledger.seen().gates, ledger.now_ms)
        _same(stored, ledger)


def _command(stored, ledger, verb, person="ann"):
    with contextlib.suppress(ConflictError):
        ledger.command(verb, person)
        stored.command(verb, ledger.now_ms, person)


def test_a_device_that_gives_up_after_the_end_is_still_heard(engine, make_ledger):
    ledger = make_ledger([2], min_reached_ratio=0.5)
    stored = Stored(engine, ledger)
    stored.command("start", 0)
    stored.tick((), 0)
    stored.run("gw-0", 2)
    stored.report("gw-0", E.SUCCEEDED, 1)
    stored.report("gw-1", E.ACCEPTED, 1)
    with writing(engine) as connection:
        view = store.read_view(connection, "r-1")
        recording.carry_out(connection, view, decide(view, "abort", "ann"), 2)
        assert store.active_rollouts(connection) == []
        assert store.trailing_rollouts(connection) == ["r-1"]
    stored.tick((), 10_000_000)
    with reading(engine) as connection:
        view = store.read_view(connection, "r-1")
        assert [one.state for one in view.executions] == [E.SUCCEEDED, E.TIMED_OUT]
        assert store.trailing_rollouts(connection) == []
        assert view.state is RolloutState.ABORTED


def test_a_rollback_leaves_the_assignments_of_others_alone(engine, make_ledger):
    stored = Stored(engine, make_ledger([1, 2]))
    with writing(engine) as connection:
        for device in ("gw-0", "gw-1", "gw-2"):
            values = {"release_sequence": 1, "rollout": "r-0", "updated_ms": 1}
            upsert(connection, schema.assignments, {"device": device, "model": "m"}, values)
    for verb in ("start", "abort", "rollback"):
        stored.command(verb, 0)
        stored.tick((), 0)
    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(schema.assignments)) == 3


@pytest.mark.parametrize(
    "data",
    [{}, {"state": None}, {"state": "rolling_back"}, {"state": "nonsense"}, {"state": 7},
     {"state": "timed_out"}, {"state": "succeeded", "intent": "rollback"}, {"state": True}],
)  # fmt: skip
def test_an_event_that_makes_no_sense_changes_nothing_and_holds_nothing_up(
    engine, make_ledger, data
):
    stored = Stored(engine, make_ledger([1]))
    stored.command("start", 0)
    stored.tick((), 0)
    with writing(engine) as connection:
        for rollout, attempt in [("r-1", 1), ("r-1", None), ("r-1", 2**40), ("r-9", 1), (None, 1)]:
            connection.execute(insert(schema.events).values(
                device="gw-0", ts_ms=1, received_ms=1, kind="execution", code="c", sentence="",
                severity="info", rollout=rollout, attempt=attempt, data=data,
            ))  # fmt: skip
        assert reports.apply_reports(connection, 1) == 5
        assert stored.view(connection, "gw-0").state is E.OFFERED


def test_an_offer_carries_the_shadow_run_that_was_asked_for_and_a_way_back_carries_none(
    engine, make_ledger
):
    ledger = make_ledger([1], shadow_rows=500, shadow_seconds=60.0)
    stored = Stored(engine, ledger)
    values = {"model": "m", "release_sequence": 2, "rollout": "r-1", "updated_ms": 1}
    with writing(engine) as connection:
        for device, intent in (("gw-0", "update"), ("gw-1", "rollback")):
            connection.execute(
                insert(schema.assignments).values(device=device, intent=intent, **values)
            )
        connection.execute(insert(schema.assignments).values(
            device="gw-2", model="m", release_sequence=2, updated_ms=1
        ))  # fmt: skip
        for device in ("gw-0", "gw-1", "gw-2"):
            connection.execute(insert(schema.devices).values(
                device=device, site="jfk", public_key=b"", enrolled_ms=1
            ))  # fmt: skip
            mark_dirty(connection, device)
    sign_pending(stored.engine, FileSigner.generate(), datetime.now(UTC))
    with reading(stored.engine) as connection:
        rows = connection.execute(select(schema.desired.c.device, schema.desired.c.envelope)).all()
    found = {}
    for device, envelope in rows:
        (one,) = decode_desired(decode_envelope(envelope).payload).models
        found[device] = (one.shadow_rows, one.shadow_seconds)
    assert found == {"gw-0": (500, 60.0), "gw-1": (None, None), "gw-2": (None, None)}
