"""Two micro-batches under way: the worker is lost, hangs, is slow, or is swapped then."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from dataclasses import replace

import pytest

from agent.workers.quarantine import Quarantine, read_window

pytestmark = pytest.mark.contract

ROWS = 640
KILLS, SLOW = -666.0, -555.0


@pytest.fixture
def run_slowly(marked_csv, bench):
    """Makes a bench whose batch of rows 192 to 255 keeps the worker half a second."""

    def make(rows=ROWS, marks=None):
        path = marked_csv(rows, marks or {200: SLOW})
        return bench(path, batch_us=1e9)  # however slow this machine is: two batches at once

    return make


def _when_two_are_under_way(run, worker, act):
    """Do something while the worker has the fourth batch, and the fifth waits."""
    seen = []

    def look():
        seen.append(worker.waiting)
        act()

    run.at(192, look)
    return seen


async def test_a_crash_with_two_batches_under_way_costs_one_worker_and_no_row(
    pool, fatal_release, run_slowly, totals
):
    run = run_slowly()
    worker = await pool.load(fatal_release())
    seen = _when_two_are_under_way(run, worker, lambda: os.kill(worker.pid, signal.SIGKILL))
    await run.run(worker)
    found = totals(await run.take())
    assert seen == [2]
    assert (found.in_count, found.ok, found.failed, found.dropped) == (ROWS, ROWS, {}, {})
    assert found.restarts == 1
    assert (found.statistics_rows, found.statistics_lost) == (ROWS - 192, 192)
    assert list(run.answers) == list(range(ROWS))
    assert [run.answers[n][1] for n in range(ROWS)] == [n + 0.5 for n in range(ROWS)]
    assert [(one.code, one.recovered) for one in run.incidents] == [("worker-crashed", True)]


async def test_a_hang_with_two_batches_under_way_is_one_missed_deadline(
    pool, fatal_release, run_slowly, totals
):
    run = run_slowly()
    worker = await pool.load(fatal_release(deadline_ms=1000.0))
    seen = _when_two_are_under_way(run, worker, lambda: os.kill(worker.pid, signal.SIGSTOP))
    await run.run(worker)
    found = totals(await run.take())
    assert seen == [2]
    assert (found.in_count, found.ok, found.failed, found.dropped) == (ROWS, ROWS, {}, {})
    assert list(run.answers) == list(range(ROWS))
    assert [(one.code, one.recovered) for one in run.incidents] == [("deadline-missed", True)]


async def test_the_deadline_of_the_second_batch_begins_when_the_worker_begins_it(
    pool, fatal_release, run_slowly, totals
):
    """Each sleeps for more than half of what a batch of 64 rows may take."""
    run = run_slowly(marks={200: SLOW, 270: SLOW})
    worker = await pool.load(fatal_release(deadline_ms=400.0))
    seen = _when_two_are_under_way(run, worker, lambda: None)
    await run.run(worker)
    found = totals(await run.take())
    assert seen == [2]
    assert (found.in_count, found.ok) == (ROWS, ROWS)
    assert run.incidents == []


async def test_of_two_batches_under_way_each_is_suspected_of_its_own_losses_only(
    pool, fatal_release, run_slowly, totals, tmp_path
):
    quarantine = Quarantine(tmp_path / "quarantine")
    pool.options = replace(pool.options, quarantine=quarantine)
    marks = {210: KILLS, 270: KILLS}
    run = run_slowly(marks={200: SLOW, **marks})
    worker = await pool.load(fatal_release())
    seen = _when_two_are_under_way(run, worker, lambda: None)
    await run.run(worker)
    found = totals(await run.take())
    assert seen == [2]
    assert (found.in_count, found.ok, found.failed) == (ROWS, ROWS - 2, {"quarantined": 2})
    assert list(run.answers) == [n for n in range(ROWS) if n not in marks]
    assert found.restarts == 6  # two a batch, and one a row
    told = Counter(one.code for one in run.incidents)
    assert told == {"worker-crashed": 4, "quarantined": 2}
    kept = [read_window(path)[1] for path in sorted(quarantine.folder.iterdir())]
    assert [one.fresh for one in kept] == [1, 1]


async def test_a_swap_settles_both_batches_under_way_first(pool, fatal_release, run_slowly, totals):
    run = run_slowly()
    one, two = await pool.load(fatal_release(1)), await pool.load(fatal_release(2))
    swaps = []

    def swap():
        swaps.append(asyncio.create_task(run.pipeline.swap(two)))

    seen = _when_two_are_under_way(run, one, swap)
    await run.run(one)
    assert [await swapped for swapped in swaps] == [one]
    assert seen == [2]
    assert one.waiting == 0
    reports = await run.take()
    found = totals(reports)
    assert (found.in_count, found.ok, found.failed, found.dropped) == (ROWS, ROWS, {}, {})
    assert list(run.answers) == list(range(ROWS))
    of_one = [n for n, version in run.versions.items() if version == "1.0.0"]
    assert of_one == list(range(len(of_one)))
    assert reports[0].ok == len(of_one) >= 320
    assert run.incidents == []


async def test_a_cancelled_pipeline_settles_both_batches_under_way(
    pool, fatal_release, run_slowly, totals
):
    run = run_slowly(10 * ROWS)
    worker = await pool.load(fatal_release())
    seen = _when_two_are_under_way(run, worker, lambda: run.task.cancel())
    await run.start(worker)
    await asyncio.wait({run.task}, timeout=20)
    found = totals(await run.take())
    assert (seen, worker.waiting) == ([2], 0)
    assert found.in_count == found.ok + found.dropped["stopped"]
    assert found.statistics_rows == found.ok == len(run.answers) >= 320
