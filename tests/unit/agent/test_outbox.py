"""The outbox on a real SQLite file: order, numbers, acknowledgements, caps, power cuts."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import OutboxLimits
from agent.outbox import RANKS, Outbox, Rank
from agent.prepare import prepare_state
from agent.state_files import open_database
from shoal.errors import InvalidInputError
from shoal.protocol import MAX_MESSAGE_BYTES
from shoal.protocol.messages import (
    Acked,
    Event,
    Health,
    Predictions,
    State,
    Statistics,
    Window,
    decode,
    encode,
)
from shoal.protocol.topics import Channel

HEADER: dict[str, Any] = {
    "device": "gw-1",
    "site": "jfk",
    "boot_id": "unset",
    "seq": 0,
    "ts_ms": 1000,
}
RELEASE: dict[str, Any] = {
    "model": "pump",
    "version": "1.0.0",
    "release_sequence": 1,
    "manifest": "a" * 64,
    "start_ms": 1000,
    "end_ms": 2000,
}
LIMITS = OutboxLimits(max_bytes=20_000, max_age_seconds=100.0, merge_above_rows=8)


@pytest.fixture
def path(tmp_path):
    """An empty outbox file, as enrolment leaves it."""
    prepare_state(tmp_path / "state")
    return tmp_path / "state" / "outbox.sqlite"


@pytest.fixture
def opened(path):
    """Opens the file as one boot of the agent does; closes at the end."""
    with contextlib.ExitStack() as stack:

        def open_(boot_id="boot-1", limits=LIMITS):
            outbox = Outbox(open_database(path), boot_id, limits)
            stack.callback(outbox.close)
            return outbox

        yield open_


@pytest.fixture
def outbox(opened):
    """A fresh outbox."""
    return opened()


def _event(code="x", **more):
    return Event(**HEADER, kind="agent", code=code, **more)


def _window(**changes):
    return Window(**{**HEADER, **RELEASE, "in_count": 2, "ok": 2, **changes})


def _predictions(values):
    return Predictions(
        **HEADER,
        model="pump",
        version="1.0.0",
        release_sequence=1,
        names=["score"],
        sample_ms=[1] * values,
        values=[[0.5]] * values,
    )


def _put_one_of_each(outbox):
    outbox.put(Channel.PREDICTIONS, _predictions(1), 1000)
    outbox.put(Channel.HEALTH, Health(**HEADER), 1000)
    outbox.put(Channel.STATISTICS, Statistics(**HEADER, **RELEASE, rows=1), 1000)
    outbox.put(Channel.WINDOW, _window(), 1000)
    outbox.put(Channel.STATE, State(**HEADER, online=True), 1000)
    outbox.put(Channel.EVENTS, _event(), 1000)


def _messages(found):
    return [decode(one.channel, one.payload) for one in found]


def _acked(boot_id, *ranges):
    return Acked(device="gw-1", boot_id=boot_id, ranges=list(ranges))


def _stored(path):
    """What another reader of the file counts."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows, size = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM messages"
        ).fetchone()
    return rows, size


def test_every_channel_up_has_a_rank_and_urgent_ones_go_first(outbox):
    _put_one_of_each(outbox)
    ranks = [RANKS[one.channel] for one in outbox.claim(10, set())]
    assert ranks == sorted(ranks)
    assert set(ranks) == set(Rank)
    assert ranks[0] is Rank.EVENT
    assert ranks[-1] is Rank.CAPTURE


def test_numbers_rise_from_one_in_order_of_first_sending(outbox):
    _put_one_of_each(outbox)
    sent = _messages(outbox.claim(10, set()))
    assert [(one.boot_id, one.seq) for one in sent] == [("boot-1", n) for n in range(1, 7)]
    outbox.put(Channel.EVENTS, _event("late"), 1000)
    (late,) = [one for one in _messages(outbox.claim(10, set())) if one.seq == 7]
    assert late.code == "late"


def test_a_row_keeps_its_number_and_bytes_when_sent_again(outbox):
    _put_one_of_each(outbox)
    first = outbox.claim(3, set())
    outbox.put(Channel.EVENTS, _event("between"), 1000)
    again = {one.row: one for one in outbox.claim(10, set())}
    assert len(again) == 7
    assert [again[one.row] for one in first] == first


def test_busy_rows_are_left_out_and_no_more_than_asked_for_given(outbox):
    for number in range(5):
        outbox.put(Channel.EVENTS, _event(str(number)), 1000)
    first = outbox.claim(2, set())
    busy = {one.row for one in first}
    rest = outbox.claim(10, busy)
    assert [one.code for one in _messages(first + rest)] == ["0", "1", "2", "3", "4"]
    assert outbox.claim(10, busy | {one.row for one in rest}) == []
    assert outbox.claim(0, set()) == []


def test_the_body_is_what_was_put_but_for_its_number(outbox):
    event = _event(sentence="Grüße", model="pump", data={"n": 1, "x": None})
    outbox.put(Channel.EVENTS, event, 1000)
    (sent,) = outbox.claim(1, set())
    assert sent.model == "pump"
    (found,) = _messages([sent])
    assert msgspec.structs.replace(found, boot_id="unset", seq=0) == event


def test_only_acknowledged_ranges_of_the_same_boot_leave(outbox, path):
    for number in range(10):
        outbox.put(Channel.EVENTS, _event(str(number)), 1000)
    outbox.claim(8, set())
    assert outbox.acknowledge(_acked("another", (1, 10))) == 0
    assert outbox.acknowledge(_acked("boot-1", (2, 3), (6, 6), (9, 99))) == 3
    assert outbox.acknowledge(_acked("boot-1", (2, 3), (6, 6), (9, 99))) == 0
    assert [one.code for one in _messages(outbox.claim(10, set()))] == list("0346789")
    assert (outbox.rows, outbox.size_bytes) == _stored(path)


def test_rows_never_sent_are_not_acknowledged_by_number_zero(outbox):
    outbox.put(Channel.EVENTS, _event(), 1000)
    assert outbox.acknowledge(_acked("unset", (0, 0))) == 0
    assert outbox.acknowledge(_acked("boot-1", (0, 2**53))) == 0
    assert outbox.rows == 1


def test_only_the_newest_unsent_state_matters(outbox):
    for number in range(3):
        outbox.put(Channel.STATE, State(**HEADER, online=True, status=str(number)), 1000)
    (sent,) = outbox.claim(10, set())
    outbox.put(Channel.STATE, State(**HEADER, online=True, status="new"), 1000)
    assert [one.status for one in _messages(outbox.claim(10, set()))] == ["2", "new"]
    assert sent.row in {one.row for one in outbox.claim(10, set())}
    assert outbox.dropped() == {}


def test_bytes_are_capped_by_class_oldest_first(outbox, path):
    for number in range(3):
        outbox.put(Channel.EVENTS, _event(str(number)), 1000)
    count = 300
    for _ in range(count):
        outbox.put(Channel.PREDICTIONS, _predictions(20), 1000)
    kept = outbox.rows - 3
    assert outbox.dropped() == {"capture": count - kept}
    sent = outbox.claim(1000, set())
    captures = [one.row for one in sent if one.channel is Channel.PREDICTIONS]
    assert captures == list(range(3 + count - kept + 1, 3 + count + 1))
    assert [one.code for one in _messages(sent[:3])] == ["0", "1", "2"]
    assert outbox.size_bytes < LIMITS.max_bytes + 1000
    assert (outbox.rows, outbox.size_bytes) == _stored(path)


def test_age_is_capped_by_class(outbox):
    outbox.put(Channel.EVENTS, _event("old"), 1000)
    outbox.put(Channel.HEALTH, Health(**HEADER), 1000)
    later = 1000 + int(LIMITS.max_age_seconds * 1000)
    outbox.put(Channel.EVENTS, _event("at the limit"), later)
    assert outbox.rows == 3
    outbox.put(Channel.EVENTS, _event("past it"), later + 1)
    assert outbox.dropped() == {"event": 1}
    codes = [one.code for one in _messages(outbox.claim(2, set()))]
    assert codes == ["at the limit", "past it"]
    assert outbox.rows == 3


def test_losses_are_counted_for_ever(opened, outbox):
    for _ in range(100):
        outbox.put(Channel.PREDICTIONS, _predictions(20), 1000)
    before = outbox.dropped()["capture"]
    assert before > 0
    again = opened("boot-2")
    assert again.dropped() == {"capture": before}
    for _ in range(100):
        again.put(Channel.PREDICTIONS, _predictions(20), 1000)
    assert again.dropped() == {"capture": 200 - again.rows}


def test_unsent_windows_are_merged_before_any_is_lost(outbox, path):
    count = 100
    for number in range(count):
        outbox.put(
            Channel.WINDOW, _window(start_ms=number, end_ms=number + 1, labels={"a": number}), 1000
        )
    assert outbox.rows <= LIMITS.merge_above_rows
    assert (outbox.rows, outbox.size_bytes) == _stored(path)
    sent = _messages(outbox.claim(1000, set()))
    assert sum(one.in_count for one in sent) == 2 * count
    assert sum(one.labels["a"] for one in sent) == sum(range(count))
    assert [one.start_ms for one in sent] == [0, *[one.end_ms for one in sent[:-1]]]
    assert sent[-1].end_ms == count
    assert outbox.dropped() == {}


def test_windows_already_sent_are_never_merged(outbox):
    for _ in range(LIMITS.merge_above_rows):
        outbox.put(Channel.WINDOW, _window(), 1000)
    sent = outbox.claim(1000, set())
    for _ in range(LIMITS.merge_above_rows + 1):
        outbox.put(Channel.WINDOW, _window(), 1000)
    again = {one.row: one for one in outbox.claim(1000, set())}
    assert [again[one.row] for one in sent] == sent
    assert len(again) < 2 * len(sent)


def test_windows_of_another_release_or_model_are_merged_apart(outbox):
    for number in range(60):
        outbox.put(Channel.WINDOW, _window(model=("pump", "fan")[number % 2]), 1000)
    for manifest in "bc":
        for _ in range(20):
            outbox.put(Channel.WINDOW, _window(manifest=manifest * 64), 1000)
    totals: dict[tuple[str, str], int] = {}
    for one in _messages(outbox.claim(1000, set())):
        key = one.model, one.manifest[0]
        totals[key] = totals.get(key, 0) + one.in_count
    assert totals == {
        ("pump", "a"): 60,
        ("fan", "a"): 60,
        ("pump", "b"): 40,
        ("pump", "c"): 40,
    }


def test_after_a_reopen_sent_rows_keep_their_old_number(opened):
    outbox = opened("boot-1")
    outbox.put(Channel.EVENTS, _event("sent"), 1000)
    outbox.put(Channel.EVENTS, _event("waiting"), 1000)
    (before,) = outbox.claim(1, set())
    again = opened("boot-2")
    assert (again.rows, again.size_bytes) == (outbox.rows, outbox.size_bytes)
    sent, fresh = again.claim(10, set())
    assert sent == before
    assert [(one.boot_id, one.seq) for one in _messages([sent, fresh])] == [
        ("boot-1", 1),
        ("boot-2", 1),
    ]
    assert again.acknowledge(_acked("boot-1", (1, 1))) == 1
    assert again.acknowledge(_acked("boot-2", (1, 1))) == 1
    assert (again.rows, again.size_bytes) == (0, 0)


KILLED = """
import sys
from pathlib import Path
from agent.config import OutboxLimits
from agent.outbox import Outbox
from agent.state_files import open_database
from shoal.protocol.messages import Event
from shoal.protocol.topics import Channel

outbox = Outbox(open_database(Path(sys.argv[1])), "killed", OutboxLimits())
for number in range(100_000):
    event = Event(device="gw-1", site="jfk", boot_id="unset", seq=0, ts_ms=1, kind="agent",
                  code=str(number))
    outbox.put(Channel.EVENTS, event, 1)
    if number % 2:
        outbox.claim(2, set(range(number)))
    print(number, flush=True)
"""


def test_nothing_told_to_be_stored_is_lost_when_the_process_is_killed(path, opened):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, contextlib.closing(process.stdout):
        for line in process.stdout:
            if int(line) >= 40:
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    outbox = opened("next")
    assert (outbox.rows, outbox.size_bytes) == _stored(path)
    assert outbox.rows > 40
    found = _messages(outbox.claim(100_000, set()))
    assert [int(one.code) for one in found] == list(range(len(found)))
    old = [one.seq for one in found if one.boot_id == "killed"]
    assert old == list(range(1, len(old) + 1))
    assert [one.seq for one in found[len(old) :]] == list(range(1, len(found) - len(old) + 1))
    assert len(found) - len(old) <= 2


def test_a_message_that_was_taken_can_always_be_sent(opened):
    """Its number makes it longer; one that has no room for it is refused at once, or would
    stop everything behind it for ever."""
    outbox = opened(boot_id="b" * 40, limits=OutboxLimits())
    room = MAX_MESSAGE_BYTES - len(encode(_event(data={"k": ""})))
    for spare in (0, 10, 30):
        with pytest.raises(InvalidInputError) as caught:
            outbox.put(Channel.EVENTS, _event(data={"k": "x" * (room - spare)}), 1000)
        assert caught.value.code == "message-too-large"
    outbox.put(Channel.EVENTS, _event(data={"k": "x" * (room - 100)}), 1000)
    outbox.put(Channel.EVENTS, _event("behind"), 1000)
    assert len(outbox.claim(10, set())) == outbox.rows == 2


def test_windows_too_large_to_be_one_stay_two(opened):
    outbox = opened(limits=OutboxLimits(max_bytes=2**30, merge_above_rows=4))
    half = MAX_MESSAGE_BYTES * 2 // 3
    for number in range(8):
        outbox.put(Channel.WINDOW, _window(labels={str(number) * (half // 8): 1}), 1000)
        outbox.put(Channel.WINDOW, _window(labels={"z" * half + str(number): 1}), 1000)
    sent = _messages(outbox.claim(100, set()))
    assert sum(one.in_count for one in sent) == 32
    assert sum(count for one in sent for count in one.labels.values()) == 16


def test_a_full_disk_loses_only_what_did_not_fit(path, opened):
    connection = open_database(path)
    outbox = Outbox(connection, "boot-1", OutboxLimits())
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 8}")

    def fill():
        for number in range(1000):
            outbox.put(Channel.EVENTS, _event(str(number), sentence="x" * 900), 1000)

    with pytest.raises(sqlite3.OperationalError, match="full"):
        fill()
    assert 5 < outbox.rows < 100
    assert (outbox.rows, outbox.size_bytes) == _stored(path)
    connection.execute(f"PRAGMA max_page_count = {pages + 100_000}")
    outbox.put(Channel.EVENTS, _event("after"), 1000)
    found = _messages(outbox.claim(1000, set()))
    assert [one.code for one in found] == [*map(str, range(len(found) - 1)), "after"]
    outbox.close()


class _FailsToCommit:
    """A connection whose next COMMIT finds the disk gone."""

    def __init__(self, connection):
        self._connection = connection
        self.broken = False

    def execute(self, sql, *values):
        if self.broken and sql == "COMMIT":
            self.broken = False
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, *values)

    def __getattr__(self, name):
        return getattr(self._connection, name)


@pytest.mark.parametrize("act", ["put", "claim", "acknowledge"])
def test_a_commit_that_fails_changes_nothing_and_the_next_one_works(path, act):
    connection = _FailsToCommit(open_database(path))
    outbox = Outbox(connection, "boot-1", LIMITS)
    outbox.put(Channel.EVENTS, _event("first"), 1000)
    if act == "acknowledge":
        outbox.claim(1, set())
    before = outbox.rows, outbox.size_bytes
    acts = {
        "put": lambda: outbox.put(Channel.EVENTS, _event("second"), 1000),
        "claim": lambda: outbox.claim(1, set()),
        "acknowledge": lambda: outbox.acknowledge(_acked("boot-1", (1, 1))),
    }
    connection.broken = True
    with pytest.raises(sqlite3.OperationalError):
        acts[act]()
    assert (outbox.rows, outbox.size_bytes) == before == _stored(path)
    acts[act]()
    assert (outbox.rows, outbox.size_bytes) == _stored(path)
    outbox.close()


acts = st.one_of(
    st.tuples(st.just("event"), st.integers(0, 2000)),
    st.tuples(st.just("capture"), st.integers(0, 200)),
    st.tuples(st.just("window"), st.integers(0, 3)),
    st.tuples(st.just("claim"), st.integers(0, 10)),
    st.tuples(st.just("ack"), st.integers(0, 60)),
    st.tuples(st.just("reopen"), st.just(0)),
)


@settings(deadline=None)  # each example works on a file
@given(st.lists(acts, max_size=40))
def test_counters_follow_the_file_whatever_is_done(tmp_path_factory, acts):
    folder = tmp_path_factory.mktemp("outbox")
    prepare_state(folder)
    path, boots, now_ms = folder / "outbox.sqlite", 1, 1000
    outbox = Outbox(open_database(path), "b1", LIMITS)
    for act, size in acts:
        now_ms += 5000
        match act:
            case "event":
                outbox.put(Channel.EVENTS, _event(sentence="x" * size), now_ms)
            case "capture":
                outbox.put(Channel.PREDICTIONS, _predictions(size), now_ms)
            case "window":
                outbox.put(Channel.WINDOW, _window(model=f"m{size}"), now_ms)
            case "claim":
                outbox.claim(size, set())
            case "ack":
                outbox.acknowledge(_acked(f"b{boots}", (size, size + 3)))
            case "reopen":
                outbox.close()
                boots += 1
                outbox = Outbox(open_database(path), f"b{boots}", LIMITS)
        assert (outbox.rows, outbox.size_bytes) == _stored(path)
    outbox.close()
