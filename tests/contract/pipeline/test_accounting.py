"""in = ok + Σ dropped + Σ failed, to the row, whatever happens to the worker."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest

from agent.workers.frames import InferRequest
from agent.workers.quarantine import Quarantine, read_window

pytestmark = pytest.mark.contract

ROWS = 1500
MISSING = {*range(0, ROWS, 7), *range(640, 640 + 150)}  # two micro-batches without a usable row
UNPARSABLE = {*range(3, ROWS, 50), ROWS - 2, ROWS - 1} - MISSING


def _assert_answers_match(bench, row, features=("a", "b")):
    for number, values in bench.answers.items():
        assert values == [row(number)[name] for name in features], number


async def test_every_row_is_settled_once(pool, release, write_csv, bench, totals, row):
    run = bench(write_csv(ROWS, MISSING, UNPARSABLE))
    await run.run(await pool.load(release()))
    (report,) = await run.take()
    found = totals([report])
    usable = set(range(ROWS)) - MISSING - UNPARSABLE
    assert (found.in_count, found.ok) == (ROWS, len(usable))
    assert found.dropped == {"missing": len(MISSING), "unparsable": len(UNPARSABLE)}
    assert found.failed == {}
    assert set(run.answers) == usable
    _assert_answers_match(run, row)
    assert run.incidents == []
    assert (report.worker_restarts, report.statistics_lost) == (0, 0)
    assert report.statistics_rows == ROWS - len(UNPARSABLE)
    assert [one.missing for one in report.features] == [0, len(MISSING)]
    assert [one.count for one in report.outputs] == [len(usable)] * 2
    assert report.features[0].max == max(set(range(ROWS)) - UNPARSABLE)


async def test_rows_that_all_lack_a_value_are_dropped_and_hurt_nobody(
    pool, release, write_csv, bench, totals
):
    run = bench(write_csv(200, missing=range(200)))
    await run.run(await pool.load(release()))
    found = totals(await run.take())
    assert (found.in_count, found.dropped) == (200, {"missing": 200})
    assert run.incidents == []
    assert run.answers == {}


async def test_single_rows_at_a_rate_are_settled_too(pool, release, write_csv, bench, totals):
    """At 90 rows a second every row is a micro-batch of its own."""
    run = bench(write_csv(30, missing={0, 5, 29}, unparsable={7}), rate_hz=90)
    await run.run(await pool.load(release()))
    found = totals(await run.take())
    assert (found.in_count, found.ok) == (30, 26)
    assert found.dropped == {"missing": 3, "unparsable": 1}
    assert run.incidents == []


async def test_a_file_of_rows_that_nobody_can_read_is_counted(
    pool, release, write_csv, bench, totals
):
    run = bench(write_csv(100, unparsable=range(100)))
    await run.run(await pool.load(release()))
    found = totals(await run.take())
    assert (found.in_count, found.dropped) == (100, {"unparsable": 100})


async def test_windows_close_while_rows_flow_and_add_up(pool, release, write_csv, bench, totals):
    run = bench(write_csv(ROWS, MISSING, UNPARSABLE))
    await run.start(await pool.load(release()))
    for rows in range(100, 1000, 100):
        await run.answered(rows)
        await run.take()
    await run.finish()
    found = totals(await run.take())
    assert len(run.reports) > 3
    assert found.in_count == ROWS
    assert found.dropped == {"missing": len(MISSING), "unparsable": len(UNPARSABLE)}
    assert found.statistics_rows == ROWS - len(UNPARSABLE)
    starts = [report.start_ms for report in run.reports]
    assert starts[1:] == [report.end_ms for report in run.reports[:-1]]


async def test_a_worker_killed_between_batches_costs_no_row(
    pool, release, write_csv, bench, totals, row
):
    run = bench(write_csv(ROWS, MISSING, UNPARSABLE))
    worker = await pool.load(release())
    pids = []

    def kill():
        pids.append(worker.pid)
        os.kill(worker.pid, signal.SIGKILL)

    for rows in (1, 200, 600, 1000):
        run.at(rows, kill)
    await run.run(worker)
    found = totals(await run.take())
    usable = set(range(ROWS)) - MISSING - UNPARSABLE
    assert (found.in_count, found.ok, found.failed) == (ROWS, len(usable), {})
    assert found.dropped == {"missing": len(MISSING), "unparsable": len(UNPARSABLE)}
    assert set(run.answers) == usable
    _assert_answers_match(run, row)
    assert len(set(pids)) == 4
    assert found.restarts == worker.restarts == 4
    assert [(one.code, one.recovered) for one in run.incidents] == [("worker-crashed", True)] * 4
    assert "died of signal 9" in run.incidents[0].sentence
    assert found.statistics_lost > 0
    assert found.statistics_rows + found.statistics_lost == ROWS - len(UNPARSABLE)


async def test_a_worker_killed_with_a_batch_in_hand_costs_no_row(
    pool, release, write_csv, bench, totals, row
):
    run = bench(write_csv(500))
    worker = await pool.load(release())

    def stop_and_kill():
        """Stopped, it takes the next batch and cannot answer before it is killed."""
        os.kill(worker.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.05, os.kill, worker.pid, signal.SIGKILL)

    run.at(128, stop_and_kill)
    run.at(320, stop_and_kill)
    await run.run(worker)
    found = totals(await run.take())
    assert (found.in_count, found.ok, found.failed, found.dropped) == (500, 500, {}, {})
    _assert_answers_match(run, row)
    assert [(one.code, one.recovered) for one in run.incidents] == [("worker-crashed", True)] * 2


async def test_a_hanging_worker_is_killed_at_its_deadline_and_costs_no_row(
    pool, release, write_csv, bench, totals, row
):
    run = bench(write_csv(500))
    worker = await pool.load(release(deadline_ms=150.0))
    hung = []

    def stop():
        if worker.pid in hung:  # answers from before it hung still come in
            run.plans.insert(0, (len(run.answers) + 1, stop))
            return
        hung.append(worker.pid)
        os.kill(worker.pid, signal.SIGSTOP)

    run.at(128, stop)
    run.at(256, stop)
    await run.run(worker)
    found = totals(await run.take())
    assert (found.in_count, found.ok, found.failed, found.dropped) == (500, 500, {}, {})
    _assert_answers_match(run, row)
    codes = [(one.code, one.recovered) for one in run.incidents]
    assert codes.count(("deadline-missed", True)) >= 2
    assert set(codes) == {("deadline-missed", True)}
    for pid in hung:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_batch_that_takes_two_workers_down_is_quarantined_and_the_rest_waits(
    pool, release, fatal_release, marked_csv, bench, totals, row, tmp_path
):
    """No worker is fast enough for this release: it is started again after a pause only."""
    quarantine = Quarantine(tmp_path / "quarantine")
    pool.options = replace(pool.options, quarantine=quarantine)
    slow = -555.0
    run = bench(marked_csv(200, dict.fromkeys(range(200), slow), missing={10}))
    hopeless = await pool.load(fatal_release(1, deadline_ms=1.0))
    await run.run(hopeless)
    found = totals(await run.take())
    assert (found.in_count, found.ok) == (200, 0)
    assert set(found.failed) <= {"quarantined", "worker-backoff"}
    assert found.failed["quarantined"] > 0
    assert run.answers == {}
    codes = [(one.code, one.recovered) for one in run.incidents[:3]]
    assert codes == [
        ("deadline-missed", True),
        ("deadline-missed", False),
        ("quarantined", False),
    ]
    first, *_ = sorted(quarantine.folder.iterdir())
    assert first.name in run.incidents[2].sentence
    head, request = read_window(first)
    assert (head["version"], head["code"]) == ("1.0.0", "deadline-missed")
    values = np.frombuffer(request.values, "<f4").reshape(-1, request.width)
    assert values[0].tolist() == [slow, row(0)["b"]]
    await run.run(await pool.load(release(2)))
    assert (await run.pipeline.swap(None)) is not hopeless
    found = totals(await run.take())
    assert (found.in_count, found.ok) == (400, 199)
    assert all(values == [slow, row(n)["b"]] for n, values in run.answers.items())


async def test_a_worker_out_of_memory_is_replaced_told_as_such_and_costs_no_row(pool, release):
    """A batch that needs memory which the process may not take any more."""
    worker = await pool.load(release())
    rows = 100_000
    request = InferRequest(0, rows, 2, np.zeros((rows, 2), "<f4").tobytes())
    incidents = []
    worker.on_incident = incidents.append
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (2**20, 2**20))
    assert (await worker.infer(request)).windows == rows
    assert [(one.code, one.recovered) for one in incidents] == [("worker-memory", True)]
    assert "out of memory" in incidents[0].sentence


async def test_answers_that_are_not_finite_are_failed_rows(pool, release, write_csv, bench, totals):
    run = bench(write_csv(200, missing={3}))
    await run.run(await pool.load(release(gain=3e38)))
    found = totals(await run.take())
    assert (found.in_count, found.dropped) == (200, {"missing": 1})
    assert found.failed == {"non-finite-output": 198}
    assert run.answers[0] == pytest.approx([0.0, 1.5e38])  # the only row that stays in range
    assert found.ok == 1
    assert run.incidents == []


async def test_a_killed_forkserver_costs_no_row(pool, release, write_csv, bench, totals, row):
    """Its workers die with it, one of them with a batch in hand; both are made anew."""
    run = bench(write_csv(ROWS))
    worker = await pool.load(release())
    servers = []

    def kill():
        servers.append(pool.pids()[0])
        os.kill(servers[-1], signal.SIGKILL)

    for rows in (1, 500, 1000):
        run.at(rows, kill)
    await run.run(worker)
    found = totals(await run.take())
    assert (found.in_count, found.ok, found.failed, found.dropped) == (ROWS, ROWS, {}, {})
    assert set(run.answers) == set(range(ROWS))
    _assert_answers_match(run, row)
    assert len(set(servers)) >= 2  # answers that were in already may hurry on to the next kill
    assert {one.code for one in run.incidents} == {"worker-crashed"}


async def test_a_pipeline_that_is_cancelled_settles_the_batch_in_hand(
    pool, release, write_csv, bench, totals, row
):
    run = bench(write_csv(3 * ROWS))  # more than the buffer holds
    await run.start(await pool.load(release()))
    run.at(300, lambda: asyncio.get_running_loop().call_soon(run.task.cancel))
    await asyncio.wait({run.task}, timeout=20)
    assert run.task.cancelled()
    found = totals(await run.take())
    assert 300 <= found.ok == len(run.answers) < 3 * ROWS
    assert found.in_count == found.ok + found.dropped["stopped"] < 3 * ROWS
    assert found.statistics_rows == found.ok
    assert found.statistics_lost == 0
    assert run.incidents == []
    _assert_answers_match(run, row)


async def test_a_fast_model_gets_fuller_batches_and_answers_each_row_once(
    pool, release, write_csv, bench, totals, row
):
    """Answers are passed on while the next batch is under way, also across a crash."""
    run = bench(write_csv(3 * ROWS), max_batch_rows=256)
    worker = await pool.load(release())
    run.at(ROWS, lambda: os.kill(worker.pid, signal.SIGKILL))
    await run.run(worker)
    found = totals(await run.take())
    assert (found.in_count, found.ok) == (3 * ROWS, 3 * ROWS)
    assert list(run.answers) == list(range(3 * ROWS))
    _assert_answers_match(run, row)
