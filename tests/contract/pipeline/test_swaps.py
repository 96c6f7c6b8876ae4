"""Swapping releases while rows flow: none is lost, and none is answered by the wrong one."""

from __future__ import annotations

import os
import signal

import pytest

pytestmark = pytest.mark.contract

ROWS = 2000


async def _run_with_swaps(run, workers, every=250):
    """Replay the file, putting the next worker in place after each `every` answers."""
    await run.start(workers[0])
    before = workers[0]
    for number, worker in enumerate(workers[1:], 1):
        await run.answered(number * every)
        assert await run.pipeline.swap(worker) is before
        before = worker
    await run.finish()
    return await run.take()


async def test_two_releases_back_and_forth_share_the_rows_exactly(
    pool, release, write_csv, bench, totals, row
):
    run = bench(write_csv(ROWS, missing=range(0, ROWS, 9)))
    one, two = await pool.load(release(1)), await pool.load(release(2))
    reports = await _run_with_swaps(run, [one, two, one, two, one])
    found = totals(reports)
    lost = len(range(0, ROWS, 9))
    assert (found.in_count, found.ok, found.failed) == (ROWS, ROWS - lost, {})
    assert found.dropped == {"missing": lost}
    assert len(run.answers) == ROWS - lost
    sequences = [report.release.manifest.sequence for report in reports]
    assert sequences == [1, 2, 1, 2, 1]
    for version, sequence in (("1.0.0", 1), ("2.0.0", 2)):
        answered = sum(one == version for one in run.versions.values())
        told = sum(r.ok for r in reports if r.release.manifest.sequence == sequence)
        assert answered == told > 0
    for number, values in run.answers.items():
        assert values == [row(number)["a"], row(number)["b"]]
    assert run.incidents == []


async def test_the_release_before_is_still_alive_after_a_swap(pool, release, write_csv, bench):
    run = bench(write_csv(10))
    one, two = await pool.load(release(1)), await pool.load(release(2))
    assert await run.pipeline.swap(one) is None
    assert await run.pipeline.swap(two) is one
    assert one.pid != two.pid
    os.kill(one.pid, 0)
    await one.close()
    assert pool.pids()[1:] == [two.pid]


@pytest.mark.parametrize(
    "features", [("b", "a"), ("a", "b", "c"), ("a",), ("c", "b")], ids="-".join
)
async def test_no_row_is_lost_or_mistaken_when_a_release_takes_other_features(
    pool, release, write_csv, bench, totals, row, features
):
    run = bench(write_csv(ROWS))
    one, two = await pool.load(release(1)), await pool.load(release(2, features=features))
    found = totals(await _run_with_swaps(run, [one, two, one, two]))
    assert (found.in_count, found.ok, found.dropped) == (ROWS, ROWS, {})
    for number, values in run.answers.items():
        names = features if run.versions[number] == "2.0.0" else ("a", "b")
        assert values == [row(number)[name] for name in names], number


@pytest.mark.parametrize("sizes", [(3, 1), (1, 3), (5, 2), (2, 5)])
async def test_windows_are_begun_anew_when_their_size_changes(
    pool, release, write_csv, bench, totals, row, sizes
):
    run = bench(write_csv(ROWS))
    workers = [await pool.load(release(n, window_rows=size)) for n, size in enumerate(sizes, 1)]
    found = totals(await _run_with_swaps(run, [*workers, *workers]))
    assert (found.in_count, found.ok) == (ROWS, ROWS)
    for number, values in run.answers.items():
        size = sizes[0] if run.versions[number] == "1.0.0" else sizes[1]
        rows = [row(n) for n in range(number - size + 1, number + 1)]
        assert values == [one[name] for one in rows for name in ("a", "b")], number
    begun = sum(2 * (size - 1) for size in sizes)  # rows whose window is not complete yet
    assert len(run.answers) == ROWS - begun


async def test_windows_run_on_over_batches_and_missing_rows(
    pool, release, write_csv, bench, totals, row
):
    missing = set(range(5, 500, 11))
    run = bench(write_csv(500, missing=missing))
    await run.run(await pool.load(release(window_rows=4)))
    found = totals(await run.take())
    usable = [number for number in range(500) if number not in missing]
    assert (found.in_count, found.ok) == (500, len(usable))
    assert sorted(run.answers) == usable[3:]
    for at, number in enumerate(usable[3:], 3):
        rows = [row(n) for n in usable[at - 3 : at + 1]]
        assert run.answers[number] == [one[name] for one in rows for name in ("a", "b")]


async def test_without_a_release_rows_are_dropped_and_counted(
    pool, release, write_csv, bench, totals
):
    run = bench(write_csv(ROWS))
    worker = await pool.load(release())
    await run.start(worker)
    await run.answered(200)
    assert await run.pipeline.swap(None) is worker
    await run.finish()
    await run.pipeline.swap(worker)
    found = totals(await run.take())
    assert found.in_count == ROWS
    assert found.ok == len(run.answers) >= 200
    assert found.dropped == {"no-model": ROWS - found.ok}


async def test_a_swap_away_from_a_dead_or_hanging_worker_succeeds(
    pool, release, write_csv, bench, totals
):
    run = bench(write_csv(ROWS))
    workers = [await pool.load(release(n, deadline_ms=150.0)) for n in (1, 2, 3)]
    run.at(200, lambda: os.kill(workers[0].pid, signal.SIGSTOP))
    run.at(500, lambda: os.kill(workers[1].pid, signal.SIGKILL))
    found = totals(await _run_with_swaps(run, workers, every=300))
    assert (found.in_count, found.ok, found.failed) == (ROWS, ROWS, {})
    assert {report.release.manifest.sequence for report in run.reports} == {1, 2, 3}
    codes = {(one.version, one.code) for one in run.incidents}
    assert {("1.0.0", "deadline-missed"), ("2.0.0", "worker-crashed")} <= codes
