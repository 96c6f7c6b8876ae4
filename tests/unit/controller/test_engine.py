"""The engine over a real database: what devices send decides how a rollout ends."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from controller import schema
from controller.database import reading, writing
from controller.ingest.fold import Folder
from controller.ingest.write import write_batch
from controller.rollouts.engine import Engine
from controller.rollouts.service import command, create, get_rollout, list_executions
from controller.rollouts.values import parse_specification
from shoal.protocol.messages import Event, ModelState, State, Window, encode

DEVICES = ("gw-0", "gw-1", "gw-2", "gw-3")
CALM, ODD = {"normal": 190, "anomaly": 10}, {"normal": 20, "anomaly": 180}
WAVES = [{"name": "canary", "devices": 1}, {"name": "100 %", "share": 1.0}]


class Fleet:
    """Devices that obey their assignments at once, and report as real ones do."""

    def __init__(self, services, manifests):
        self.services = services
        self.manifests = manifests
        self.folder = Folder(dict.fromkeys(DEVICES, "jfk"), {})
        self.seq = 0
        self.labels = {1: CALM, 2: CALM}

    def send(self, device, form, topic, **fields):
        self.seq += 1
        message = form(device=device, site="jfk", boot_id="b", seq=self.seq, ts_ms=1, **fields)
        now_ms = self.services.now_ms()
        with writing(self.services.engine) as connection:
            raw = [(f"shoal/v1/jfk/{device}/{topic}", encode(message))]
            batch = self.folder.fold(raw, now_ms)
            assert batch.rejections == {}
            write_batch(connection, batch, self.folder.ranges, now_ms)

    def run(self, device, sequence):
        model = ModelState(
            model="pump", active_version=f"{sequence}.0", active_sequence=sequence,
            active_manifest=self.manifests[sequence],
        )  # fmt: skip
        self.send(device, State, "state", online=True, models=[model])

    def answer(self, device, sequence):
        """200 rows of the release that runs."""
        self.send(
            device, Window, "models/pump/window", model="pump", version=f"{sequence}.0",
            release_sequence=sequence, manifest="0" * 64, start_ms=0, end_ms=1,
            in_count=200, ok=200, labels=self.labels[sequence], latency_counts=[0] * 20 + [200],
        )  # fmt: skip

    def obey(self):
        """Every device does what its assignment says, and says so."""
        with reading(self.services.engine) as connection:
            rows = connection.execute(select(schema.assignments)).all()
            running = dict(
                connection.execute(
                    select(schema.device_models.c.device, schema.device_models.c.active_sequence)
                ).all()
            )
        for row in rows:
            if running[row.device] != row.release_sequence:
                self.run(row.device, row.release_sequence)
                self.tell(row, "succeeded")
            self.answer(row.device, row.release_sequence)

    def tell(self, row, state):
        self.send(
            row.device, Event, "events", kind="execution", code=state, model="pump",
            rollout=row.rollout, attempt=row.attempt, data={"state": state, "intent": row.intent},
        )  # fmt: skip


@pytest.fixture
def fleet(services, enrolled, make_pump, release):
    manifests = {}
    for number in (1, 2):
        package = make_pump(f"{number}.0", number)
        release(package)
        manifests[number] = package.manifest_sha256
    fleet = Fleet(services, manifests)
    for device in DEVICES:
        enrolled(device)
        fleet.run(device, 1)
        fleet.answer(device, 1)
    return fleet


@pytest.fixture
def start(services):
    def run(**options):
        body = {"model": "pump", "version": "2.0", "waves": WAVES, "soak_seconds": 0, **options}
        return create(services, parse_specification(body), "ann")["rollout"]

    return run


def _drive(services, fleet, rollout, rounds=12):
    """Tick and obey until nothing is under way; the control answers, too."""
    engine = Engine(services)
    for _ in range(rounds):
        engine.tick()
        fleet.obey()
        with reading(services.engine) as connection:
            found = get_rollout(connection, rollout)
            idle = connection.scalars(
                select(schema.device_models.c.device).where(
                    schema.device_models.c.active_sequence == 1
                )
            ).all()
        if found["state"] not in ("running", "rolling_back"):
            return found
        for device in idle:
            fleet.answer(device, 1)
    return found


def test_a_good_release_goes_through_all_waves(services, fleet, start):
    found = _drive(services, fleet, start())
    assert (found["state"], [wave["state"] for wave in found["waves"]]) == (
        "succeeded", ["passed", "passed"],
    )  # fmt: skip
    shift = [one for one in found["waves"][0]["gates"] if one["name"] == "prediction shift"]
    assert [one["verdict"] for one in shift] == ["pass"]


def test_a_release_that_answers_otherwise_is_taken_back_from_the_canary(services, fleet, start):
    fleet.labels[2] = ODD
    found = _drive(services, fleet, start())
    assert (found["state"], [wave["state"] for wave in found["waves"]]) == (
        "rolled_back", ["failed", "pending"],
    )  # fmt: skip
    assert "answers moved by" in found["waves"][0]["reason"]
    with reading(services.engine) as connection:
        running = set(connection.scalars(select(schema.device_models.c.active_sequence)))
    assert running == {1}


def test_a_canary_that_answers_too_little_holds_and_asks(services, fleet, start):
    rollout = start(evaluate_seconds=0, gates={"min_rows": 100_000})
    found = _drive(services, fleet, rollout)
    assert (found["state"], found["waves"][0]["state"]) == ("paused", "inconclusive")
    assert "0 of 1 devices have answered 100000 rows" in found["reason"]

    command(services, rollout, "promote", "ann")
    found = _drive(services, fleet, rollout)
    assert (found["waves"][0]["state"], found["waves"][0]["promoted"]) == ("passed", True)


def test_trouble_with_one_rollout_holds_no_other(services, fleet, start):
    broken = start()
    with writing(services.engine) as connection:
        connection.execute(update(schema.rollouts).values(options={"waves": "nonsense"}))
    with writing(services.engine) as connection:  # a second one, of another model
        row = connection.execute(select(schema.rollouts)).mappings().one()
        good = dict(row) | {"rollout": "r-2", "model": "pump", "options": {}, "created_ms": 10**15}
        connection.execute(schema.rollouts.insert().values(**good))
    assert Engine(services).tick()
    with reading(services.engine) as connection:
        query = select(schema.rollouts.c.rollout, schema.rollouts.c.state)
        states = dict(connection.execute(query).all())
    assert states == {broken: "running", "r-2": "succeeded"}


def test_a_device_that_runs_something_else_after_the_end_is_shown_as_reverted(
    services, fleet, start
):
    rollout = start()
    _drive(services, fleet, rollout)

    def state_after(device, sequence):
        fleet.run(device, sequence)
        Engine(services).tick()
        with reading(services.engine) as connection:
            found = {one["device"]: one for one in list_executions(connection, rollout)}
            assert get_rollout(connection, rollout)["state"] == "succeeded"
        return found[device]

    found = state_after("gw-2", 1)
    assert (found["state"], found["code"]) == ("reverted", "reverted")
    assert found["sentence"] == "gw-2: runs 1.0, 2.0 was given and had succeeded"
    assert state_after("gw-2", 2)["state"] == "succeeded"
