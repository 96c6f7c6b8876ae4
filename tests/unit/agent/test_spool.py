"""The outbox that never stops the agent: full disk, read-only file, broken file, a week offline."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import OutboxLimits
from agent.outbox import Outbox
from agent.prepare import prepare_state
from agent.spool import MEMORY_LIMITS, RETRY_SECONDS, Spool
from agent.state_files import create_outbox
from controller.ingest.fold import Folder
from shoal.protocol.messages import Acked, Event, FieldStatistics, Statistics, Window, decode
from shoal.protocol.topics import Channel, Topic, format_topic

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
}
WEEK_SECONDS = 7 * 86_400


class Watch:
    """A monotonic clock moved by the test."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def path(tmp_path):
    """An empty outbox file, as enrolment leaves it."""
    prepare_state(tmp_path / "state")
    return tmp_path / "state" / "outbox.sqlite"


@pytest.fixture
def watch():
    """Time for retries."""
    return Watch()


@pytest.fixture
def opened(path, watch):
    """Opens spools and closes them at the end."""
    with contextlib.ExitStack() as stack:

        def open_(boot_id="boot-1", limits=OutboxLimits()):  # noqa: B008 - frozen
            spool = Spool(path, boot_id, limits, monotonic=watch)
            stack.callback(spool.close)
            return spool

        yield open_


def _event(code, **more):
    return Event(**HEADER, kind="agent", code=code, **more)


def _codes(found):
    return [decode(one.channel, one.payload).code for one in found]


def _numbers(found):
    return [decode(one.channel, one.payload).seq for one in found]


def _refuse_writes(spool, refuse=True):
    """What a file system that turned read-only under an open file does to every statement."""
    spool._disk._db.execute(f"PRAGMA query_only = {'ON' if refuse else 'OFF'}")


def test_a_read_only_file_costs_no_message_and_is_told(opened, watch):
    spool = opened()
    spool.put(Channel.EVENTS, _event("on disk"), 1000)
    _refuse_writes(spool)
    spool.put(Channel.EVENTS, _event("in memory"), 1000)
    assert "readonly" in spool.trouble
    (sent,) = spool.claim(10, set())
    assert _codes([sent]) == ["in memory"]
    assert spool.rows == 2
    _refuse_writes(spool, refuse=False)
    watch.seconds += RETRY_SECONDS
    found = spool.claim(10, set())
    assert spool.trouble == ""
    assert sorted(_codes(found)) == ["in memory", "on disk"]
    assert sorted(_numbers(found)) == [1, 2]
    assert spool.acknowledge(Acked(device="gw-1", boot_id="boot-1", ranges=[(1, 2)])) == 2
    assert spool.rows == 0


def test_what_is_in_memory_is_bounded_and_its_losses_are_counted(opened):
    spool = opened()
    _refuse_writes(spool)
    for number in range(2000):
        spool.put(Channel.EVENTS, _event(str(number), sentence="x" * 900), 1000)
    assert spool.size_bytes <= MEMORY_LIMITS.max_bytes + 2000
    assert spool.dropped()["event"] == 2000 - spool.rows
    assert _codes(spool.claim(2000, set()))[-1] == "1999"


def test_what_was_sent_from_memory_keeps_its_number_on_the_disk(opened, watch):
    spool = opened()
    _refuse_writes(spool)
    for number in range(3):
        spool.put(Channel.EVENTS, _event(str(number)), 1000)
    before = {one.payload for one in spool.claim(2, set())}
    _refuse_writes(spool, refuse=False)
    watch.seconds += RETRY_SECONDS
    after = spool.claim(10, set())
    assert before < {one.payload for one in after}
    assert _numbers(after) == [1, 2, 3]


def test_acknowledged_in_memory_never_comes_back(opened, watch):
    spool = opened()
    _refuse_writes(spool)
    spool.put(Channel.EVENTS, _event("a"), 1000)
    spool.claim(1, set())
    assert spool.acknowledge(Acked(device="gw-1", boot_id="boot-1", ranges=[(1, 1)])) == 1
    _refuse_writes(spool, refuse=False)
    watch.seconds += RETRY_SECONDS
    spool.put(Channel.EVENTS, _event("b"), 1000)
    assert _codes(spool.claim(10, set())) == ["b"]


FULL = """
import json, resource, signal, sys, time
from pathlib import Path
from agent.config import OutboxLimits
from agent.spool import RETRY_SECONDS, Spool
from shoal.protocol.messages import Event, decode
from shoal.protocol.topics import Channel

now = [0.0]
path = Path(sys.argv[1])
spool = Spool(path, "boot-1", OutboxLimits(), monotonic=lambda: now[0])
def put(code):
    spool.put(Channel.EVENTS, Event(device="gw-1", site="jfk", boot_id="unset", seq=0, ts_ms=1,
              kind="agent", code=code, sentence="x" * 500), 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
put("0")
size = max(p.stat().st_size for p in path.parent.glob("outbox.sqlite*"))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, resource.RLIM_INFINITY))
for number in range(1, 200):
    put(str(number))
full, in_file = spool.trouble, spool._disk.rows
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
now[0] += RETRY_SECONDS
found = spool.claim(1000, set())
print(json.dumps([full, in_file, spool.trouble,
                  [decode(one.channel, one.payload).code for one in found]]))
spool.close()
"""


def test_a_disk_that_fills_up_under_a_running_process_loses_nothing(path):
    """The kernel refuses to let the file grow, as a full disk does, then gives way."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True
    )
    full, in_file, afterwards, codes = json.loads(result.stdout)
    assert "kept in memory" in full
    assert 0 < in_file < 200
    assert afterwards == ""
    assert codes == [str(number) for number in range(200)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"not a database at all" * 100,
        lambda data: data[:100] + b"\xff" * 4000 + data[4100:],
        lambda data: data[:4096] + b"\xff" * (len(data) - 4096),
        lambda data: data[:5000],
    ],
    ids=["not-sqlite", "schema-page", "all-other-pages", "cut"],
)
def test_a_broken_file_is_set_aside_and_a_new_one_begun(opened, path, damage):
    spool = opened()
    for number in range(50):
        spool.put(Channel.EVENTS, _event(str(number), sentence="x" * 500), 1000)
    spool._disk.close()
    spool._disk = None
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(damage(path.read_bytes()))
    again = opened("boot-2")
    assert (again.set_aside, again.trouble, again.rows) == (1, "", 0)
    again.put(Channel.EVENTS, _event("new"), 1000)
    assert _codes(again.claim(10, set())) == ["new"]
    assert path.with_name("outbox.sqlite.broken").exists()


def test_a_file_that_breaks_while_it_is_used_is_set_aside_too(opened, path):
    spool = opened()
    for number in range(200):
        spool.put(Channel.EVENTS, _event(str(number), sentence="x" * 500), 1000)
    spool._disk._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spool._disk._db.execute("PRAGMA cache_size = 0")
    handle = os.open(path, os.O_WRONLY)
    os.pwrite(handle, b"\xff" * (path.stat().st_size - 4096), 4096)
    os.close(handle)
    spool._disk._db.execute("PRAGMA shrink_memory")
    for number in range(3):
        spool.put(Channel.EVENTS, _event(f"after {number}"), 1000)
    assert (spool.set_aside, spool.trouble) == (1, "")
    assert _codes(spool.claim(10, set())) == ["after 0", "after 1", "after 2"]


def test_a_missing_file_is_made_anew(opened, path):
    for file in path.parent.glob("outbox.sqlite*"):
        file.unlink()
    spool = opened()
    spool.put(Channel.EVENTS, _event("first"), 1000)
    assert (spool.trouble, spool.rows) == ("", 1)
    assert path.exists()


def test_a_folder_that_cannot_be_written_at_all_is_survived(tmp_path):
    spool = Spool(tmp_path / "absent" / "outbox.sqlite", "boot-1", OutboxLimits())
    spool.put(Channel.EVENTS, _event("first"), 1000)
    assert "kept in memory" in spool.trouble
    assert _codes(spool.claim(10, set())) == ["first"]
    spool.close()


def _window(second):
    start = second * 1000
    return Window(
        **HEADER,
        **RELEASE,
        start_ms=start,
        end_ms=start + 1000,
        in_count=10 + second % 3,
        ok=10,
        dropped={"missing": second % 3} if second % 3 else {},
        labels={"normal": 9, "anomaly": 1},
        latency_counts=[0, 0, 4, 6],
    )


def _statistics(second):
    start = second * 1000
    return Statistics(
        **HEADER,
        **RELEASE,
        start_ms=start,
        end_ms=start + 1000,
        rows=10,
        features=[FieldStatistics(name="t", count=10, mean=second % 7, m2=1.0, bins=[3, 3, 4])],
    )


def test_a_week_without_a_broker_stays_within_caps_and_loses_no_count():
    """A window and its statistics a second; in memory, since only the rules are on trial."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create_outbox(connection)
    limits = OutboxLimits(max_bytes=2**20)
    outbox = Outbox(connection, "boot-1", limits)
    step = 60  # 10,080 of a week's 604,800 seconds, each standing for its minute
    seconds = range(0, WEEK_SECONDS, step)
    for second in seconds:
        outbox.put(Channel.WINDOW, _window(second), second * 1000)
        outbox.put(Channel.STATISTICS, _statistics(second), second * 1000)
    assert outbox.rows <= 2 * limits.merge_above_rows
    assert outbox.size_bytes <= limits.max_bytes
    assert outbox.dropped() == {}
    sent = [decode(one.channel, one.payload) for one in outbox.claim(10_000, set())]
    windows = [one for one in sent if isinstance(one, Window)]
    assert sum(one.in_count for one in windows) == sum(10 + second % 3 for second in seconds)
    assert sum(one.dropped.get("missing", 0) for one in windows) == sum(s % 3 for s in seconds)
    assert sum(one.labels["anomaly"] for one in windows) == len(seconds)
    assert sum(one.latency_counts[3] for one in windows) == 6 * len(seconds)
    fields = [one.features[0] for one in sent if isinstance(one, Statistics)]
    assert sum(one.count for one in fields) == 10 * len(seconds)
    assert [sum(one.bins[i] for one in fields) for i in range(3)] == [
        n * len(seconds) for n in (3, 3, 4)
    ]
    total = sum(one.mean * one.count for one in fields)
    assert total == pytest.approx(sum(10.0 * (second % 7) for second in seconds))
    outbox.close()


def test_a_clock_that_jumps_by_years_drops_nothing(opened):
    """Ages are measured in steady time, whatever the messages say of the wall."""
    spool = opened(limits=OutboxLimits(max_age_seconds=100.0, merge_above_rows=4))
    for number, wall in enumerate([0, 1_800_000_000_000, 5, 4_000_000_000_000, 9]):
        event = _event(str(number))
        event.ts_ms = wall
        spool.put(Channel.EVENTS, event, 1000 + number)
        window = _window(number)
        window.ts_ms = wall
        spool.put(Channel.WINDOW, window, 1000 + number)
    assert spool.dropped() == {}
    assert spool.rows < 10  # merged


def test_caps_of_a_class_can_differ(opened):
    spool = opened(limits=OutboxLimits(class_bytes={"event": 5_000}, class_age_seconds={}))
    for number in range(40):
        spool.put(Channel.EVENTS, _event(str(number), sentence="x" * 400), 1000)
    assert spool.size_bytes <= 5_000
    assert spool.dropped()["event"] > 20


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_duplicates_and_another_order_change_nothing_at_the_controller(data):
    """Whatever the wire does to the outbox's messages, each takes effect once and is acked."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create_outbox(connection)
    outbox = Outbox(connection, "boot-1", OutboxLimits(merge_above_rows=4))
    for number in range(data.draw(st.integers(1, 30))):
        outbox.put(Channel.WINDOW, _window(number), 1000)
        outbox.put(Channel.EVENTS, _event(str(number)), 1000)
    folder = Folder({"gw-1": "jfk"}, {})
    wire = []
    for one in outbox.claim(100, set()):
        model = "pump" if one.channel is Channel.WINDOW else None
        wire.append((format_topic(Topic("jfk", "gw-1", one.channel, model)), one.payload))
    again = data.draw(st.lists(st.sampled_from(wire), max_size=30))
    order = data.draw(st.permutations(wire + again))
    batch = folder.fold(order, 1000)
    assert batch.duplicates == len(again)
    count = len(batch.events)
    assert sorted(one["code"] for one in batch.events) == sorted(map(str, range(count)))
    assert sum(one["in_count"] for one in batch.windows) == sum(10 + n % 3 for n in range(count))
    ranges = folder.ranges["gw-1", "boot-1"]
    assert ranges == [(1, len(wire))]
    outbox.acknowledge(Acked(device="gw-1", boot_id="boot-1", ranges=ranges))
    assert (outbox.rows, outbox.size_bytes) == (0, 0)
    outbox.close()
