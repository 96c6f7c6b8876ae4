"""What decides whether a release or the agent is given up, and which files may go."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.crashloop import (
    MAX_STARTS,
    CrashHistory,
    CrashLimits,
    add_crash,
    backoff_seconds,
    is_loop,
)
from agent.garbage import GarbageLimits, Unneeded, choose_garbage, collect_garbage
from agent.golden import GoldenMark, is_due
from agent.memory import MIB, available_bytes, check_memory
from agent.prepare import prepare_state
from agent.safemode import SafeMode
from agent.state_files import open_database
from agent.store import StateStore, StateStoreError
from agent.workers.frames import InferRequest
from agent.workers.limits import BASE_BYTES, allowance
from agent.workers.link import explain_end
from agent.workers.pool import deadline_seconds
from agent.workers.quarantine import Quarantine, read_window
from shoal.errors import ShoalError

LIMITS = CrashLimits(crashes=3, seconds=60)


def _crash(*times_ms):
    history = CrashHistory()
    for one in times_ms:
        history = add_crash(history, "m", one, LIMITS)
    return history


def test_enough_crashes_within_the_time_are_a_loop():
    assert not is_loop(_crash(0, 1000), LIMITS)
    assert is_loop(_crash(0, 1000, 60_000), LIMITS)
    assert not is_loop(_crash(0, 1000, 60_001), LIMITS)


def test_another_release_begins_anew_and_a_clock_that_went_back_forgets_nothing():
    assert not is_loop(add_crash(_crash(0, 1), "other", 2, LIMITS), LIMITS)
    assert is_loop(_crash(10**12, 10**12, 5), LIMITS)


@given(st.lists(st.integers(0, 10**6)))
def test_a_history_never_grows(times):
    assert len(_crash(*times).times_ms) <= LIMITS.crashes


def test_the_first_two_workers_are_replaced_at_once_the_next_ever_later():
    waits = [backoff_seconds(n) for n in range(20)]
    assert waits[:5] == [0, 0, 0.5, 1, 2]
    assert waits == sorted(waits)
    assert waits[-1] == 60


@pytest.fixture
def store(tmp_path):
    prepare_state(tmp_path)
    store = StateStore(open_database(tmp_path / "state.sqlite"))
    yield store
    store.close()


async def test_an_agent_that_keeps_crashing_starts_in_safe_mode_until_news_come(store):
    for _ in range(MAX_STARTS - 1):
        assert SafeMode(store).reason == ""
    safe = SafeMode(store)
    assert f"started {MAX_STARTS} times" in safe.reason
    waiting = asyncio.ensure_future(safe.over())
    await asyncio.sleep(0)
    assert not waiting.done()
    safe.leave()
    await waiting
    assert safe.reason == ""
    assert SafeMode(store).reason  # it is not healthy yet
    safe.clear()
    assert SafeMode(store).reason == ""


async def test_safe_mode_ends_by_itself_and_healthy_minutes_clear_the_count(store):
    for _ in range(MAX_STARTS):
        safe = SafeMode(store)
    await safe.over(seconds=0.01)
    await safe.watch(seconds=0.01)
    assert SafeMode(store).reason == ""


def test_a_store_that_cannot_be_written_says_so_and_keeps_what_it_had(store):
    store.accept_desired(7, b"seven")
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StateStoreError, match="is read-only") as refused:
        store.accept_desired(8, b"eight")
    assert refused.value.code == "read-only-state"
    assert store.desired() == (7, b"seven")


def test_files_go_by_age_and_the_oldest_when_there_are_too_many():
    files = [Unneeded(str(i), 10, age_seconds=float(i)) for i in range(6)]
    assert choose_garbage(files, GarbageLimits(max_age_seconds=4.5, max_bytes=100)) == ["5"]
    assert choose_garbage(files, GarbageLimits(max_age_seconds=99, max_bytes=25)) == [
        "5",
        "4",
        "3",
        "2",
    ]


def test_nothing_goes_when_a_kept_manifest_cannot_be_read(tmp_path):
    for name in ("kept", "other"):
        (tmp_path / name).write_bytes(b"not json")
        os.utime(tmp_path / name, (0, 0))
    limits = GarbageLimits(max_age_seconds=0)
    assert collect_garbage(tmp_path, {"kept"}, limits) == 0
    (tmp_path / "kept").write_bytes(b'{"files":[{"sha256":"named"}]}')
    (tmp_path / "named.part").write_bytes(b"")
    assert collect_garbage(tmp_path, {"kept"}, limits) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "named.part"}


@pytest.mark.parametrize(
    ("mark", "due"),
    [
        (None, True),
        (GoldenMark("m", "litert 2", 1000), False),
        (GoldenMark("m", "litert 1", 1000), True),
        (GoldenMark("other", "litert 2", 1000), True),
        (GoldenMark("m", "litert 2", 1000 - 86_400_000), True),
        (GoldenMark("m", "litert 2", 1001), True),
    ],
)
def test_golden_samples_are_due_daily_and_after_a_runtime_change(mark, due):
    assert is_due(mark, "m", "litert 2", 1000, 86_400.0) is due


def test_the_tightest_control_group_above_us_limits_what_is_available(tmp_path):
    (tmp_path / "own").write_text("12:x:/\n0::/system.slice/agent.service\n")
    for folder, limit, current in (
        ("system.slice", "max", 0),
        ("system.slice/agent.service", str(64 * MIB), 50 * MIB),
    ):
        path = tmp_path / folder
        path.mkdir()
        (path / "memory.max").write_text(f"{limit}\n")
        (path / "memory.current").write_text(f"{current}\n")
        (path / "memory.stat").write_text(f"anon 1\ninactive_file {10 * MIB}\n")
    assert available_bytes(tmp_path, tmp_path / "own") == 24 * MIB
    assert available_bytes(tmp_path, tmp_path / "absent") > 24 * MIB


def test_a_model_too_large_for_the_device_is_told_from_one_too_large_for_now():
    check_memory("m", 10 * MIB, 10 * MIB, 20 * MIB)
    with pytest.raises(ShoalError, match=r"11\.0 MiB, available are 10\.0 MiB") as now:
        check_memory("m", 11 * MIB, 10 * MIB, 20 * MIB)
    with pytest.raises(ShoalError, match=r"21\.0 MiB, this device has 20\.0 MiB") as never:
        check_memory("m", 21 * MIB, 10 * MIB, 20 * MIB)
    assert (now.value.code, never.value.code) == ("memory-now", "memory")


def test_a_worker_may_take_what_is_configured_else_by_its_models_need():
    assert allowance(MIB, 8) == 8 * MIB
    assert allowance(0, 0) == BASE_BYTES
    assert allowance(MIB, 0) > BASE_BYTES


@pytest.mark.parametrize(
    ("stated_ms", "p99_ms", "rows", "ms"),
    [(0, 0, 1, 100), (0, 1, 1, 100), (0, 20, 1, 200), (0, 1, 64, 640), (0, 0, 64, 200),
     (50, 99, 1, 50), (50, 99, 64, 100)],
)  # fmt: skip
def test_deadlines_follow_the_latency_measured_unless_stated(stated_ms, p99_ms, rows, ms):
    assert deadline_seconds(stated_ms, 100, p99_ms, rows) * 1e3 == pytest.approx(ms)


def test_the_last_words_of_a_worker_tell_memory_from_other_crashes():
    code, words = explain_end(-6, "terminate called after 'std::bad_alloc'\n  what(): bad_alloc")
    assert code == "worker-memory"
    assert words.startswith("out of memory, died of signal 6")
    assert explain_end(-11, "") == ("worker-crashed", "died of signal 11")
    assert explain_end(1, "x\nValueError: no") == (
        "worker-crashed",
        "ended with status 1 (ValueError: no)",
    )


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=8))
def test_a_quarantine_keeps_to_its_limits_and_can_be_read(tmp_path_factory, sizes):
    quarantine = Quarantine(tmp_path_factory.mktemp("q") / "q", max_files=3, max_bytes=8000)
    release = SimpleNamespace(
        manifest=SimpleNamespace(model="pump", version="1.0.0"), manifest_sha256="m"
    )
    for rows in sizes:
        request = InferRequest(0, rows, 1, bytes(4 * rows))
        path = quarantine.keep(release, request, "worker-crashed", "why")
        if path is not None:
            head, found = read_window(path)
            assert (head["code"], found) == ("worker-crashed", request)
    files = list(quarantine.folder.glob("*")) if quarantine.folder.exists() else []
    assert len(files) <= 3
    assert sum(one.stat().st_size for one in files) <= 8000


def test_a_quarantine_that_cannot_be_written_costs_only_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    release = SimpleNamespace(
        manifest=SimpleNamespace(model="pump", version="1.0.0"), manifest_sha256="m"
    )
    request = InferRequest(0, 1, 1, bytes(4))
    assert Quarantine(tmp_path / "file").keep(release, request, "c", "s") is None
