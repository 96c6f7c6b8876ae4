"""Captures: which windows are kept, within quota, without what is redacted, and given out again."""

from __future__ import annotations

import array
import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.capture import CaptureStore, Recorder
from agent.capture.replay import send_range
from agent.capture.rules import Rules, every
from agent.capture.store import DAY_MS, Sample
from agent.clock import Clock, Known
from agent.ports import StagedRelease
from agent.workers.frames import InferAnswer, InferRequest
from shoal.protocol.commands import CaptureRange
from shoal.protocol.manifest import (
    CapturePolicy,
    ClassScores,
    Contract,
    Feature,
    FileEntry,
    Manifest,
    OutputField,
    Threshold,
    Variant,
    find_problems,
)

CONTRACT = Contract(
    features=[Feature(name="a"), Feature(name="b")],
    outputs=[OutputField(name="score", low=0.0, high=10.0)],
    postprocess=[Threshold(above=5.0)],
)
POLICY = CapturePolicy(one_in=1, per_day=10)


@dataclass
class Hands:
    """Time moved by the test."""

    seconds: float = 0.0

    def clock(self) -> Clock:
        """A clock that starts at the beginning of a day."""
        return Clock(Known(0, 10**12), wall=lambda: 10**12, monotonic=lambda: self.seconds)


@dataclass
class Sent:
    """What would go into the outbox."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def captures(self, **fields: Any) -> None:
        """As `Reporter.captures`."""
        self.messages.append(fields)


def _release(policy=POLICY, contract=CONTRACT, digest="a" * 64):
    variant = Variant(name="v", file="m.tflite")
    manifest = Manifest(
        model="pump",
        version="1.0",
        sequence=1,
        created="2026-01-01T00:00:00+00:00",
        files=[FileEntry(name="m.tflite", sha256="b" * 64, length=1)],
        variants=[variant],
        contract=contract,
        capture=policy,
    )
    return StagedRelease(manifest, digest, variant, None)  # type: ignore[arg-type]


def _answer(*scores):
    values = array.array("f", scores)
    labels = bytes(int(score > 5) for score in scores)
    return InferAnswer(len(scores), 1, 0, 0, bytes(len(scores)), values.tobytes(), labels)


def _rows(*rows):
    return array.array("f", [value for row in rows for value in row]).tobytes()


@pytest.fixture
def hands():
    """Time."""
    return Hands()


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    found = CaptureStore(tmp_path / "captures.sqlite", 2**20)
    yield found
    found.close()


@pytest.fixture
def see(store, hands):
    """Shows a recorder windows with these scores; the rows hold their own number."""
    recorder = Recorder(store, hands.clock())

    def show(release, *scores):
        if not recorder.wants(release):
            return
        rows = _rows(*[(index, -index) for index in range(len(scores))])
        times = [1000 + index for index in range(len(scores))]
        recorder.see(release, _answer(*scores), ["normal", "anomaly"], rows, times, 0)

    return show


def _kept(store, model="pump"):
    return store.find(model, 0, 2**53, 1000)[::-1]


def test_a_package_that_asks_for_nothing_has_no_file(see, store, tmp_path):
    see(_release(CapturePolicy()), 1.0, 99.0)
    assert not (tmp_path / "captures.sqlite").exists()
    assert store.lost == {}


def test_windows_are_kept_for_what_they_are(see, store):
    policy = CapturePolicy(low_margin=0.5, out_of_range=True)
    see(_release(policy), 1.0, 4.8, 11.0, float("nan"), 5.4, 9.0)
    assert [(one.sample_ms, one.reason) for one in _kept(store)] == [
        (1001, "low-margin"),
        (1002, "out-of-range"),
        (1003, "out-of-range"),
        (1004, "low-margin"),
    ]
    assert [one.label for one in _kept(store)] == ["normal", "anomaly", "normal", "anomaly"]
    assert _kept(store)[1].outputs == [11.0]
    assert _kept(store)[2].outputs == [None]
    assert _kept(store)[0].rows == _rows((1, -1))


def test_classes_are_low_in_margin_when_the_best_score_is(store):
    contract = Contract(
        features=CONTRACT.features,
        outputs=[OutputField(name="confidence")],
        postprocess=[ClassScores(classes=["x", "y"])],
    )
    rules = Rules(CapturePolicy(low_margin=0.2), contract)
    assert rules.reason_of([0.55]) == "low-margin"
    assert rules.reason_of([0.65]) == ""


@given(st.integers(1, 50), st.lists(st.integers(0, 40), max_size=30))
def test_one_in_n_does_not_depend_on_batches(one_in, batches):
    seen, found = 0, []
    for fresh in batches:
        found += [seen + index for index in every(seen, fresh, one_in)]
        seen += fresh
    assert found == list(range(0, seen, one_in))


def test_the_quota_of_a_day_is_kept_and_what_is_lost_is_counted(see, store, hands):
    release = _release(CapturePolicy(one_in=1, per_day=3))
    see(release, *[1.0] * 5)
    assert (len(_kept(store)), store.lost["quota"]) == (3, 2)
    hands.seconds += DAY_MS / 1000
    see(release, *[1.0] * 5)
    assert len(_kept(store)) == 6


def test_the_quota_holds_over_a_restart(see, store, hands, tmp_path):
    release = _release(CapturePolicy(one_in=1, per_day=3))
    see(release, 1.0, 1.0)
    again = CaptureStore(tmp_path / "captures.sqlite", 2**20)
    recorder = Recorder(again, hands.clock())
    assert recorder.wants(release)
    recorder.see(release, _answer(1.0, 1.0), ["n", "a"], _rows((0, 0), (1, 1)), [1, 2], 0)
    assert again.count() == 3
    again.close()


def test_bytes_of_a_day_and_of_the_device_are_capped(hands, tmp_path):
    store = CaptureStore(tmp_path / "captures.sqlite", 50_000)
    sample = Sample("pump", "1", 1, "m", 1, "one-in", b"x" * 1000, ["a"], [], ["s"], [1.0])
    policy = CapturePolicy(one_in=1, per_day=1000, max_bytes_per_day=20_000)
    kept = sum(store.add(sample, policy, 0) for _ in range(100))
    assert kept == 20_000 // 1208
    for day in range(1, 10):
        for _ in range(100):
            store.add(sample, policy, day * DAY_MS)
    with sqlite3.connect(tmp_path / "captures.sqlite") as connection:
        (size,) = connection.execute("SELECT SUM(bytes) FROM samples").fetchone()
    connection.close()
    assert 30_000 < size <= 50_000
    store.close()


def test_what_is_too_old_goes(store):
    policy = CapturePolicy(one_in=1, keep_days=2.0)
    sample = Sample("pump", "1", 1, "m", 1, "one-in", b"", ["a"], [], ["s"], [1.0])
    for day in range(5):
        store.add(sample, policy, day * DAY_MS)
    assert store.count() == 3


def test_what_is_redacted_is_never_on_the_disk(see, store, tmp_path):
    secret = 12345.678
    release = _release(CapturePolicy(one_in=1, redact=["b"]))
    recorder = Recorder(store, Hands().clock())
    assert recorder.wants(release)
    rows = _rows((1.0, secret), (2.0, secret))
    recorder.see(release, _answer(1.0, 2.0), ["n", "a"], rows, [1, 2], 0)
    store.close()
    needle = array.array("f", [secret]).tobytes()
    assert needle in rows
    for path in tmp_path.iterdir():
        assert needle not in path.read_bytes()
    (first, _) = _kept(store)
    assert first.redacted == ["b"]
    values = array.array("f", first.rows)
    assert values[0] == 1.0
    assert values[1] != values[1]


def test_a_window_of_several_rows_is_kept_whole_with_what_was_carried(store):
    contract = Contract(
        features=CONTRACT.features, outputs=CONTRACT.outputs, window_rows=3, stride_rows=2
    )
    release = _release(POLICY, contract)
    recorder = Recorder(store, Hands().clock())
    assert recorder.wants(release)
    rows = _rows(*[(number, 0) for number in range(5)])  # rows 0 and 1 were carried
    recorder.see(release, _answer(1.0, 2.0), ["n", "a"], rows, [12, 13, 14], 2)
    first, second = _kept(store)
    assert (first.rows, first.sample_ms) == (_rows((0, 0), (1, 0), (2, 0)), 12)
    assert (second.rows, second.sample_ms) == (_rows((2, 0), (3, 0), (4, 0)), 14)


def test_a_disagreement_is_kept_only_where_it_is_asked_for(store, hands):
    recorder = Recorder(store, hands.clock())
    request = InferRequest(0, 2, 2, _rows((0, 0), (1, 1)))
    for policy, kept in ((POLICY, 0), (CapturePolicy(disagreement=True), 1)):
        release = _release(policy, digest=str(kept) * 64)
        recorder.disagreed(release, request, _answer(1.0, 2.0), ["n", "a"], [1])
        assert store.count() == kept
    assert _kept(store)[0].rows == _rows((1, 1))


def test_a_store_that_cannot_be_written_loses_and_counts(tmp_path, hands):
    store = CaptureStore(tmp_path / "absent" / "captures.sqlite", 2**20)
    recorder = Recorder(store, hands.clock())
    assert recorder.wants(_release())
    recorder.see(_release(), _answer(1.0), ["n", "a"], _rows((0, 0)), [1], 0)
    assert store.lost["disk"] == 1
    assert store.find("pump", 0, 10, 10) == []


def test_a_full_disk_loses_and_goes_on(see, store):
    see(_release(CapturePolicy(one_in=1, per_day=1000)), 1.0)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    see(_release(CapturePolicy(one_in=1, per_day=1000)), *[1.0] * 60)
    before = store.count()
    assert 0 < store.lost["disk"] < 60
    store._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    see(_release(CapturePolicy(one_in=1, per_day=1000)), 1.0)
    assert store.count() == before + 1


def test_a_broken_store_is_set_aside(see, store, tmp_path):
    see(_release(), 1.0)
    store.close()
    path = tmp_path / "captures.sqlite"
    path.write_bytes(b"no database" * 1000)
    again = CaptureStore(path, 2**20)
    recorder = Recorder(again, Hands().clock())
    for number in range(2):
        assert recorder.wants(_release())
        recorder.see(_release(), _answer(1.0), ["n", "a"], _rows((0, 0)), [number], 0)
    assert (again.lost["disk"], again.count()) == (1, 1)
    assert path.with_name("captures.sqlite.broken").exists()
    again.close()


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60), max_size=20), st.integers(1, 30))
def test_a_range_is_sent_whole_in_messages_that_fit(tmp_path_factory, sizes, limit):
    store = CaptureStore(tmp_path_factory.mktemp("captures") / "c.sqlite", 2**30)
    policy = CapturePolicy(one_in=1, per_day=1000)
    for number, size in enumerate(sizes):
        names = [f"f{i}" for i in range(size * 20)]
        rows = array.array("f", range(size * 20)).tobytes()
        store.add(
            Sample("pump", "1", 1, f"m{size}", number, "one-in", rows, names, [], ["s"], [1.0]),
            policy,
            0,
        )
    sent = Sent()
    told = json.loads(send_range(CaptureRange("pump", limit=limit), store, sent))  # type: ignore[arg-type]
    samples = [one for message in sent.messages for one in message["samples"]]
    assert told == {"samples": len(samples), "too_large": 0}
    wanted = list(range(len(sizes)))[::-1][:limit]
    assert [one["sample_ms"] for one in samples] == wanted
    for message in sent.messages:
        assert len(message["features"]) == len(message["samples"][0]["rows"][0])
    store.close()


def test_a_policy_that_redacts_what_is_not_there_is_a_mistake():
    manifest = _release(CapturePolicy(redact=["c"])).manifest
    assert find_problems(manifest) == ["capture.redact: no feature 'c'"]
