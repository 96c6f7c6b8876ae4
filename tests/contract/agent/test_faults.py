"""Killed workers at every stage, a killed agent at every step, and a disk that takes nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal

import pytest

from agent.crashloop import CrashLimits
from agent.workers.pool import PoolOptions
from shoal.protocol.manifest import Shadow

pytestmark = pytest.mark.contract

STAGES = (
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
)


async def _signal_next_worker(device, number):
    """Send a signal to the next process that the forkserver makes, before it is asked to load."""
    server = await device.pool.server()
    fork = server.fork

    async def fork_and_signal():
        server.fork = fork
        forked = await fork()
        os.kill(forked.pid, number)
        return forked

    server.fork = fork_and_signal


def _act_at(device, stage, act):
    """Call `act` right after a stage of a candidate is stored, once."""
    save = device.store.save_slots
    done = []

    def save_and_act(slots):
        save(slots)
        if not done and slots.candidate and slots.candidate.stage.value == stage:
            done.append(stage)
            act()

    device.store.save_slots = save_and_act
    return done


def _candidate_pid(device):
    """The worker of the newest release."""
    worker = max(device.pool.workers, key=lambda one: one.release.manifest.sequence)
    assert worker.pid > 0  # 0 would be our own process group
    return worker.pid


async def _signal_answering(device, number):
    """Send a signal to the worker that answers, once there is one."""
    await device.until(lambda: device.manager.running and device.manager.running.pid)
    os.kill(device.manager.running.pid, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
async def test_a_worker_lost_at_any_stage_costs_no_row(device, repository, assign, number):
    device.pool_options = PoolOptions(
        min_deadline_ms=500, load_timeout_seconds=1.0, golden_timeout_seconds=1.0
    )
    await device.start(assign(repository.publish(1, deadline_ms=500.0)))
    await device.until(lambda: device.versions[0] == "1.0.0")

    await _signal_next_worker(device, number)
    device.manager.assign(assign(repository.publish(2)))  # lost while it loads
    await device.until_stage("refused")
    assert device.slots.candidate.code in ("worker-crashed", "load-timeout")

    _act_at(device, "warm", lambda: os.kill(_candidate_pid(device), number))
    device.manager.assign(assign(repository.publish(3)))  # lost over its golden samples
    await device.until(lambda: device.execution("3.0.0")[-1:] == ["rejected"])
    assert device.slots.candidate.code in ("worker-crashed", "deadline-missed")
    assert device.answering == "1.0.0"

    values = {"shadow": Shadow(rows=100), "deadline_ms": 500.0}
    _act_at(device, "shadow", lambda: os.kill(_candidate_pid(device), number))
    _act_at(device, "probation", lambda: os.kill(_candidate_pid(device), number))
    device.manager.assign(assign(repository.publish(4, **values)))
    await device.until(lambda: device.versions == ("4.0.0", "1.0.0"))

    await _signal_answering(device, number)  # lost while it is active
    rows = device.totals["ok"]
    await device.until(lambda: device.totals["ok"] > rows + 200)
    await device.stop()
    assert device.lost == {}
    lost = {one.code for one in device.events("worker")}
    assert lost == {"deadline-missed" if number == signal.SIGSTOP else "worker-crashed"}


async def test_a_release_in_a_crash_loop_gives_way_and_is_not_tried_again(
    device, repository, assign
):
    device.crash_limits = CrashLimits(crashes=3, seconds=600)
    one, two = repository.publish(1), repository.publish(2)
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    device.manager.assign(assign(two))
    await device.until(lambda: device.versions[0] == "2.0.0")
    for number in range(3):
        if number == 2:  # the count outlives the agent
            await device.stop()
            await device.start(assign(two))
            await device.until(lambda: device.answering == "2.0.0")
        await _signal_answering(device, signal.SIGKILL)
        lost = number + 1
        await device.until(lambda lost=lost: len(device.events("worker")) == lost)
        rows = device.totals["ok"]
        await device.until(lambda rows=rows: device.totals["ok"] > rows + 100)
    await device.until(lambda: device.answering == "1.0.0")
    assert device.versions == ("1.0.0", None)
    assert device.slots.candidate.code == "crash-loop"
    assert device.execution("2.0.0")[-1] == "rolled_back"
    told = [one.sentence for one in device.events("slot")]
    await device.stop()
    assert device.lost == {}, told


async def test_without_a_release_before_the_model_stops_and_can_be_assigned_anew(
    device, repository, assign
):
    device.crash_limits = CrashLimits(crashes=1, seconds=600)
    one = repository.publish(1)
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    await _signal_answering(device, signal.SIGKILL)
    await device.until(lambda: "stopped, since none was before" in device.manager.trouble)
    device.crash_limits = CrashLimits(crashes=100)
    await device.stop()
    await device.start(assign(one))
    await device.until(lambda: device.manager.trouble)
    assert device.answering is None
    device.manager.assign(assign(one, attempt=1))
    await device.until(lambda: device.answering == "1.0.0")
    assert (device.slots.stopped, device.manager.trouble) == ("", "")


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A state folder with release 1 committed, made once."""
    return {"folder": tmp_path_factory.mktemp("committed") / "state"}


async def _commit_one(device, repository, assign):
    await device.start(assign(repository.publish(1)))
    await device.until(lambda: device.versions[0] == "1.0.0")
    await device.stop()


@pytest.mark.parametrize("stage", STAGES)
async def test_an_agent_killed_at_any_step_starts_into_what_was_good(
    device, repository, assign, kill_at, committed, stage
):
    folder = committed["folder"]
    if not folder.exists():
        await _commit_one(device, repository, assign)
        shutil.copytree(device.folder, folder)
    else:
        shutil.rmtree(device.folder)
        shutil.copytree(folder, device.folder)
    two = assign(repository.publish(2, shadow=Shadow(rows=20)))
    assert await asyncio.to_thread(kill_at, device.folder, stage, two) == -signal.SIGKILL
    await device.start(two)
    await device.until(lambda: device.answering)
    assert device.answering == ("2.0.0" if stage in ("probation", "committed") else "1.0.0")
    await device.until(lambda: device.versions == ("2.0.0", "1.0.0"))
    await device.stop()
    assert device.lost == {}


async def test_a_read_only_state_folder_stops_nothing_that_answers(device, repository, assign):
    await device.start(assign(repository.publish(1)))
    await device.until(lambda: device.versions[0] == "1.0.0")
    device.store._db.execute("PRAGMA query_only = ON")
    device.manager.assign(assign(repository.publish(2)))
    await device.until(lambda: device.manager.degraded)
    assert "is read-only" in device.manager.degraded
    assert device.events("slot")[-1].code == "read-only-state"
    rows = device.totals["ok"]
    await device.until(lambda: device.totals["ok"] > rows + 100)
    assert device.answering == "1.0.0"
    await device.stop()
    assert device.lost == {}


async def test_a_full_disk_stops_nothing_that_answers(device, repository, assign):
    await device.start(assign(repository.publish(1)))
    await device.until(lambda: device.versions[0] == "1.0.0")
    (pages,) = device.store._db.execute("PRAGMA page_count").fetchone()
    device.store._db.execute(f"PRAGMA max_page_count = {pages}")
    device.manager.assign(assign(repository.publish(2), rollout="r" * 20_000))
    await device.until(lambda: device.manager.degraded)
    assert "the disk is full" in device.manager.degraded
    rows = device.totals["ok"]
    await device.until(lambda: device.totals["ok"] > rows + 100)
    assert device.answering == "1.0.0"
    await device.stop()
    assert device.lost == {}
