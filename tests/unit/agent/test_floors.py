"""Floors, time and pace: what a device never goes below, and how long it lets itself be held."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.floors import (
    COPIES,
    Floors,
    RoleFloor,
    decode_floors,
    encode_floors,
    raise_release,
    read_floors,
    write_floors,
)
from agent.refusals import Refusals
from agent.trust import load_root, pin_root
from agent.updater.moment import Uptime, effective_ms, raise_time, to_ms
from agent.updater.pace import Limits, Pace, SlowTransferError
from agent.updates import BURST, REFILL_SECONDS, Budget
from shoal.errors import UntrustedError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FLOORS = Floors(
    generation=3,
    roles={"root": RoleFloor(2, ["a"])},
    releases={"pump": 7},
    desired_sequence=5,
    time_ms=to_ms(NOW),
)


@pytest.fixture
def folder(tmp_path):
    """A state folder with a pinned root."""
    pin_root(tmp_path, b"root one")
    return tmp_path


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_flipped_bit_is_noticed(at, bit):
    data = bytearray(encode_floors(FLOORS))
    data[at % len(data)] ^= 1 << bit
    assert decode_floors(bytes(data)) in (None, FLOORS)


@given(st.integers(0, 10**6))
def test_a_torn_write_is_noticed(at):
    data = encode_floors(FLOORS)
    assert decode_floors(data[: at % len(data)]) is None


@pytest.mark.parametrize("first", COPIES)
def test_the_newer_of_two_good_copies_counts(folder, first):
    """A power cut between the two writings."""
    old = (folder / "trust" / COPIES[0]).read_bytes()
    write_floors(folder, FLOORS)
    (folder / "trust" / first).write_bytes(old)
    assert read_floors(folder).desired_sequence == 5


@pytest.mark.parametrize("bad", [b"", b"{}", b"\0" * 100, b"[" * 60_000])
def test_without_a_good_copy_there_are_none(folder, bad):
    for name in COPIES:
        (folder / "trust" / name).write_bytes(bad)
    assert read_floors(folder) is None


def test_a_release_floor_only_rises(folder):
    for sequence in (3, 9, 4):
        raise_release(folder, "pump", sequence)
    raise_release(folder, "fan", 2)
    assert read_floors(folder).releases == {"pump": 9, "fan": 2}


def test_floors_raised_at_once_by_several_are_all_kept(folder):
    models = [f"m{number}" for number in range(8)]
    threads = [threading.Thread(target=raise_release, args=(folder, m, 1)) for m in models]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert set(read_floors(folder).releases) == set(models)


def test_the_pinned_root_is_read_only_and_another_begins_anew(folder):
    assert load_root(folder) == b"root one"
    assert (folder / "trust" / "root.json").stat().st_mode & 0o777 == 0o400
    raise_release(folder, "pump", 4)
    pin_root(folder, b"root one")
    assert read_floors(folder).releases == {"pump": 4}
    (folder / "trust" / "metadata").mkdir()
    pin_root(folder, b"root two")
    assert read_floors(folder).releases == {}
    assert not (folder / "trust" / "metadata").exists()


@given(st.integers(0, 2**45), st.integers(0, 2**45), st.integers(0, 2**40), st.sampled_from("ab"))
def test_time_never_goes_below_the_floor_nor_the_system(system, floor, uptime, boot):
    floors = Floors(time_ms=floor, boot_id="a", boot_ms=1000)
    found = effective_ms(floors, system, Uptime(boot, uptime), built_ms=5)
    assert found >= max(system, floor, 5)
    if boot == "b":
        assert found == max(system, floor, 5)


def test_while_the_kernel_runs_the_floor_goes_on_with_it():
    """A clock in 1970 and a frozen repository: what was signed still expires."""
    floors = raise_time(Floors(), NOW, NOW + timedelta(days=1), Uptime("a", 1000))
    later = effective_ms(floors, 0, Uptime("a", 1000 + 86_400_000), built_ms=0)
    assert later == to_ms(NOW + timedelta(days=1))


def test_signed_time_moves_the_floor_up_and_only_up():
    floors = raise_time(FLOORS, NOW + timedelta(hours=1), NOW + timedelta(days=1), Uptime("a", 1))
    assert floors.time_ms == to_ms(NOW + timedelta(hours=1))
    assert raise_time(floors, NOW, NOW + timedelta(days=1), Uptime("a", 2)) == floors
    with pytest.raises(UntrustedError) as caught:
        raise_time(floors, NOW + timedelta(days=2), NOW + timedelta(days=1), Uptime("a", 2))
    assert caught.value.code == "time-jump"


class Ticking:
    """A clock that sleeping moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_a_transfer_has_a_deadline_for_all_of_it():
    clock = Ticking()
    pace = Pace("x", 8192, Limits(grace_seconds=10.0), clock, clock.sleep)
    assert pace.wait_seconds() == 12.0
    clock.now = 11.0
    assert pace.wait_seconds() == 1.0
    clock.now = 12.0
    with pytest.raises(SlowTransferError) as caught:
        pace.wait_seconds()
    assert caught.value.code == "download-slow"


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_a_limit_of_speed_is_never_passed_nor_called_slow(sizes):
    clock = Ticking()
    limits = Limits(max_bytes_per_second=1000.0)
    pace = Pace("x", sum(sizes), limits, clock, clock.sleep)
    for size in sizes:
        pace.wait_seconds()
        pace.count(size)
    assert clock.now >= sum(sizes) / 1000.0 - 0.001


def test_asking_for_newer_metadata_has_a_budget():
    clock = Ticking()
    budget = Budget(clock)
    for _ in range(BURST):
        assert budget.has_some()
        budget.take()
    assert not budget.has_some()
    clock.now += REFILL_SECONDS
    assert budget.has_some()
    budget.take()
    assert not budget.has_some()


def test_a_flood_of_refusals_is_told_once_with_its_number_later():
    clock, told = Ticking(), []

    class Reporter:
        def event(self, kind, code, sentence, **more):
            told.append((kind, code, more["data"]))

    refusals = Refusals("desired", Reporter(), quiet_seconds=60.0, clock=clock)
    for _ in range(100):
        refusals.tell("unknown-key", "no")
    refusals.tell("wrong-device", "no")
    clock.now = 61.0
    refusals.tell("unknown-key", "no")
    assert told == [
        ("desired", "unknown-key", {}),
        ("desired", "wrong-device", {}),
        ("desired", "unknown-key", {"untold": 99}),
    ]
