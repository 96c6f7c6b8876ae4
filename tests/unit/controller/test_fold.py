"""From messages to rows: exactly once in effect, and nothing that is sent stops it."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from controller import schema
from controller.database import reading, writing
from controller.ingest.fold import Folder, strangers
from controller.ingest.write import write_batch
from shoal.protocol import MAX_MESSAGE_BYTES
from shoal.protocol.messages import (
    Event,
    FieldStatistics,
    Health,
    ModelState,
    Predictions,
    State,
    Statistics,
    Window,
    encode,
)

ROOT = "shoal/v1/jfk/gw-1"
WHO = {"device": "gw-1", "site": "jfk", "boot_id": "b1", "ts_ms": 1000}
OF = {"model": "pump", "version": "1", "release_sequence": 1, "manifest": "0" * 64}
SPAN = {"start_ms": 0, "end_ms": 1000}


def window(seq, **changes):
    return Window(**WHO | OF | SPAN | {"seq": seq, "in_count": 10, "ok": 10} | changes)


def state(seq, **changes):
    return State(**WHO | {"seq": seq, "online": True} | changes)


def event(seq, **changes):
    return Event(**WHO | {"seq": seq, "kind": "agent", "code": "hello"} | changes)


TOPICS = {
    Window: f"{ROOT}/models/pump/window",
    Statistics: f"{ROOT}/models/pump/statistics",
    Predictions: f"{ROOT}/models/pump/predictions",
    State: f"{ROOT}/state",
    Event: f"{ROOT}/events",
    Health: f"{ROOT}/health",
}


def sent(*messages):
    return [(TOPICS[type(one)], encode(one)) for one in messages]


@pytest.fixture
def ingest(services, enrolled):
    """Folds and commits as the ingest process does."""
    enrolled("gw-1")
    enrolled("gw-2")
    folder = Folder({"gw-1": "jfk", "gw-2": "jfk"}, {})

    def run(messages, now_ms=5000):
        batch = folder.fold(messages, now_ms)
        with writing(services.engine) as connection:
            write_batch(connection, batch, folder.ranges, now_ms)
        return batch

    run.folder = folder
    return run


@pytest.fixture
def count(services):
    def of(table):
        with reading(services.engine) as connection:
            return connection.scalar(select(func.count()).select_from(table))

    return of


@pytest.fixture
def device(services):
    def read():
        with reading(services.engine) as connection:
            query = select(schema.devices).where(schema.devices.c.device == "gw-1")
            return connection.execute(query).one()

    return read


# Exactly once


def test_a_message_that_comes_twice_counts_once(ingest, count):
    ingest(sent(window(1), window(2), window(1)))
    batch = ingest(sent(window(2), window(3)))
    assert (batch.duplicates, count(schema.windows)) == (1, 3)


@given(order=st.permutations(range(1, 9)))
def test_any_order_of_arrival_commits_the_same(order):
    folder = Folder({"gw-1": "jfk"}, {})
    batch = folder.fold(sent(*(window(seq) for seq in order)), 1)
    assert len(batch.windows) == 8
    assert folder.ranges["gw-1", "b1"] == [(1, 8)]


def test_the_same_sequence_of_another_boot_is_another_message(ingest, count):
    ingest(sent(window(1), window(1, boot_id="b2")))
    assert count(schema.windows) == 2


def test_what_a_lost_transaction_folded_is_folded_again(ingest, count):
    """The folder is read anew after a commit that failed; nothing is taken for committed."""
    ingest(sent(window(1)))
    fresh = Folder(dict(ingest.folder.devices), {("gw-1", "b1"): [(1, 1)]})
    assert len(fresh.fold(sent(window(1), window(2)), 1).windows) == 1
    assert count(schema.windows) == 1


def test_every_kind_of_message_reaches_its_table(ingest, count):
    field = FieldStatistics(name="t", count=3, bins=[1, 2])
    ingest(
        sent(
            window(1),
            Statistics(**WHO | OF | SPAN, seq=2, rows=3, features=[field], outputs=[field]),
            Health(**WHO, seq=3),
            event(4),
            Predictions(
                **WHO, seq=5, model="pump", version="1", release_sequence=1, names=["y"],
                sample_ms=[1, 2], values=[[0.5], [None]],
            ),
            state(6, models=[ModelState(model="pump", active_sequence=1)]),
        )
    )  # fmt: skip
    tables = (schema.windows, schema.statistics, schema.health, schema.events)
    assert [count(table) for table in tables] == [1, 1, 1, 1]
    assert count(schema.predictions) == 2
    assert count(schema.device_models) == 1


# Current state


def test_a_late_state_does_not_roll_the_current_one_back(ingest, device):
    ingest(sent(state(5, status="degraded"), state(3, status="ok")))
    ingest(sent(state(4, status="ok")))
    assert device().status == "degraded"


def test_a_late_state_of_an_older_boot_does_not_roll_the_current_one_back(ingest, device):
    ingest(sent(state(1, boot_id="b2", ts_ms=9000, status="degraded")))
    ingest(sent(state(7, boot_id="b1", ts_ms=8000, status="ok")))
    assert (device().status, device().boot_id) == ("degraded", "b2")


def test_a_new_boot_whose_clock_is_behind_is_current(ingest, device):
    """A gateway without a battery starts in 1970 until it has the time."""
    ingest(sent(state(7, ts_ms=9000, status="degraded")), now_ms=9000)
    ingest(sent(state(1, boot_id="b2", ts_ms=10, clock_synced=False)), now_ms=9500)
    assert (device().status, device().boot_id) == ("ok", "b2")
    ingest(sent(state(8, ts_ms=9400, status="degraded")), now_ms=9600)
    assert (device().status, device().boot_id) == ("ok", "b2")


def test_a_clock_that_was_years_ahead_does_not_hide_the_boots_after_it(ingest, device):
    ingest(sent(state(7, ts_ms=10**13, status="degraded")), now_ms=9000)
    ingest(sent(state(1, boot_id="b2", ts_ms=9500)), now_ms=9500)
    assert (device().status, device().boot_id) == ("ok", "b2")


def test_the_last_will_sets_only_its_own_boot_offline(ingest, device):
    will = state(0, online=False)
    ingest(sent(state(1)))
    ingest(sent(state(1, boot_id="b2", ts_ms=2000), will))
    assert device().online
    ingest(sent(state(0, boot_id="b2", online=False)))
    assert not device().online
    assert device().boot_id == "b2"


def test_a_state_of_sequence_zero_that_is_no_will_is_not_believed(ingest, device):
    ingest(sent(state(0, status="failing")))
    assert device().status == "unknown"


def test_models_that_a_state_does_not_name_any_more_go(ingest, count):
    ingest(sent(state(1, models=[ModelState(model="a"), ModelState(model="b")])))
    ingest(sent(state(2, models=[ModelState(model="b")])))
    assert count(schema.device_models) == 1


# Bad input


def _raw(**changes):
    found = msgspec.to_builtins(window(1)) | changes
    return json.dumps(found).encode()


HOSTILE = {
    "nothing of JSON": (b"\x00\xff\x00", "invalid-message"),
    "truncated": (_raw()[:-20], "invalid-message"),
    "another type": (b"[1,2,3]", "invalid-message"),
    "deep": (b"[" * 60_000, "invalid-message"),
    "deep in a field nobody reads": (_raw()[:-1] + b',"x":' + b"[" * 60_000 + b"}",
                                     "invalid-message"),
    "oversized": (_raw(labels={"x" * MAX_MESSAGE_BYTES: 1}), "message-too-large"),
    "a lone surrogate": (_raw().replace(b"b1", b"\\ud800"), "invalid-message"),
    "not UTF-8": (_raw().replace(b"b1", b"\xff\xfe"), "invalid-message"),
    "a number beyond floating point": (_raw().replace(b"1000", b"1e999"), "invalid-message"),
    "NaN": (_raw().replace(b"1000", b"NaN"), "invalid-message"),
    "negative counts": (_raw(ok=-1), "invalid-message"),
    "counts beyond the database": (_raw(ok=2**63), "invalid-message"),
    "another device": (_raw(device="gw-2"), "wrong-identity"),
    "another site": (_raw(site="lga"), "wrong-identity"),
    "another model": (_raw(model="fan"), "wrong-identity"),
    "a schema of the future": (_raw(schema=99), "schema-too-new"),
    "a device name with a path": (_raw(device="../gw-1"), "invalid-message"),
    "a missing field": (_raw().replace(b'"in_count"', b'"count_in"'), "invalid-message"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_bad_message_is_counted_and_dropped_and_the_rest_goes_on(ingest, count, services, what):
    payload, code = HOSTILE[what]
    topic = TOPICS[Window]
    batch = ingest([(topic, payload), *sent(window(2)), (topic, payload)])

    assert batch.rejections[("gw-1", "window", code)][0] == 2
    assert count(schema.windows) == 1
    with reading(services.engine) as connection:
        row = connection.execute(select(schema.rejections)).one()
    assert (row.device, row.channel, row.code, row.count) == ("gw-1", "window", code, 2)
    assert 0 < len(row.example) <= 1000


@pytest.mark.parametrize(
    ("topic", "device", "code"),
    [
        ("shoal/v1/jfk/gw-9/state", "gw-9", "unknown-device"),
        ("shoal/v1/lga/gw-1/state", "gw-1", "wrong-site"),
        ("shoal/v1/jfk/gw-1/desired", "gw-1", "wrong-channel"),
        ("shoal/v1/jfk/gw-1/acked", "gw-1", "wrong-channel"),
        ("shoal/v2/jfk/gw-1/state", "", "invalid-input"),
        ("shoal/v1/jfk/gw-1/models/pump/state", "", "invalid-input"),
        ("", "", "invalid-input"),
        ("/" * 500, "", "invalid-input"),
    ],
)
def test_a_bad_topic_is_counted_and_dropped(ingest, topic, device, code):
    batch = ingest([(topic, encode(state(1)))])
    assert [key[::2] for key in batch.rejections] == [(device, code)]
    assert batch.states == []


def test_a_rejected_message_of_a_known_device_is_settled_so_that_it_is_not_sent_for_ever(ingest):
    batch = ingest([(TOPICS[Window], _raw(ok=-1, seq=4))])
    assert ingest.folder.ranges["gw-1", "b1"] == [(4, 4)]
    assert batch.boots == {("gw-1", "b1")}


def test_a_rejected_message_settles_nothing_of_another_device(ingest):
    ingest([(TOPICS[Window], _raw(device="gw-2"))])
    assert ingest.folder.ranges == {}


def test_a_revoked_device_is_a_stranger(ingest):
    del ingest.folder.devices["gw-1"]
    messages = sent(window(1))
    assert strangers(messages, ingest.folder.devices) == {"gw-1"}
    assert ("gw-1", "window", "unknown-device") in ingest(messages).rejections


def test_an_empty_message_only_clears_a_topic(ingest):
    assert ingest([(TOPICS[State], b"")]).rejections == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
EXAMPLES = [
    window(1, labels={"a": 1}, dropped={"late": 1}),
    Statistics(**WHO | OF | SPAN, seq=1, rows=1, features=[FieldStatistics(name="t", count=1)]),
    state(1, models=[ModelState(model="pump")], facts={"arch": "arm"}),
    event(1, model="pump", rollout="r-1", attempt=1, data={"state": "accepted"}),
    Health(**WHO, seq=1, outbox_dropped={"x": 1}),
    Predictions(**WHO, seq=1, model="pump", version="1", release_sequence=1, names=["y"],
                sample_ms=[1], values=[[0.5]]),
]  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(which=st.integers(0, len(EXAMPLES) - 1), field=st.integers(0, 40), value=JSON)
def test_whatever_a_field_holds_the_batch_is_committed(ingest, which, field, value):
    message = EXAMPLES[which]
    found = msgspec.to_builtins(message)
    names = [name for name in found if name not in ("device", "site")]
    found[names[field % len(names)]] = value
    good = window(1 + hash((which, field)) % 10**6, boot_id="good")
    raw = json.dumps(found).encode()
    batch = ingest([(TOPICS[type(message)], raw), *sent(good)])
    assert len(batch.windows) + batch.duplicates >= 1
