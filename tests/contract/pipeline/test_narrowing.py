"""Rows that kill workers: only their windows are quarantined, the others are answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from agent.workers.quarantine import Quarantine, read_window

pytestmark = pytest.mark.contract

KILLS, HANGS = -666.0, -999.0


@pytest.fixture
def quarantine(pool, tmp_path):
    """What the pool sets aside."""
    found = Quarantine(tmp_path / "quarantine")
    pool.options = replace(pool.options, quarantine=found)
    return found


def _windows_set_aside(quarantine):
    return [read_window(path) for path in sorted(quarantine.folder.iterdir())]


@pytest.mark.parametrize("mark", [KILLS, HANGS])
async def test_only_the_row_that_kills_is_quarantined(
    pool, fatal_release, marked_csv, bench, totals, row, quarantine, mark
):
    marks = {100: mark, 101: mark, 300: mark}
    run = bench(marked_csv(500, marks, missing={99, 102}))
    worker = await pool.load(fatal_release(deadline_ms=300.0 if mark == HANGS else 0.0))
    await run.run(worker)
    found = totals(await run.take())
    assert (found.in_count, found.ok) == (500, 495)
    assert (found.failed, found.dropped) == ({"quarantined": 3}, {"missing": 2})
    assert list(run.answers) == [n for n in range(500) if n not in {*marks, 99, 102}]
    assert run.answers[103] == [row(103)["a"], row(103)["b"]]
    assert found.restarts == 7  # two a batch, and one a row
    assert found.statistics_rows + found.statistics_lost == 497
    code = "deadline-missed" if mark == HANGS else "worker-crashed"
    told = Counter(one.code for one in run.incidents)
    assert told == {code: 4, "quarantined": 3}
    kept = _windows_set_aside(quarantine)
    assert [(head["code"], one.fresh) for head, one in kept] == [(code, 1)] * 3
    assert [np.frombuffer(one.values, "<f4")[0] for _, one in kept] == [mark] * 3
    assert "1 row took workers down (worker " in run.incidents[2].sentence


@pytest.mark.parametrize(("window_rows", "stride"), [(4, 1), (4, 2), (3, 3)])
async def test_only_windows_with_the_killing_row_are_quarantined(
    pool, fatal_release, marked_csv, bench, totals, quarantine, window_rows, stride
):
    killing, missing = 150, 153
    run = bench(marked_csv(400, {killing: KILLS}, missing={missing}))
    contract = {"stride_rows": stride}
    await run.run(await pool.load(fatal_release(window_rows=window_rows, contract=contract)))
    usable = [number for number in range(400) if number != missing]
    windows = [
        usable[at : at + window_rows] for at in range(0, len(usable) - window_rows + 1, stride)
    ]
    deadly = [one for one in windows if killing in one]
    assert list(run.answers) == [one[-1] for one in windows if one not in deadly]
    for one in windows:
        if one not in deadly:
            assert run.answers[one[-1]][0::2] == [float(number) for number in one]
    found = totals(await run.take())
    assert (found.in_count, found.dropped) == (400, {"missing": 1})
    assert found.failed == {"quarantined": len(deadly)}
    assert found.restarts == 2 + len(deadly)
    kept = [np.frombuffer(one.values, "<f4").reshape(-1, 2)[:, 0].tolist()
            for _, one in _windows_set_aside(quarantine)]  # fmt: skip
    wanted = [[KILLS if number == killing else number for number in one] for one in deadly]
    assert kept == wanted


async def test_a_model_that_dies_of_everything_costs_a_bounded_number_of_workers(
    pool, fatal_release, marked_csv, bench, totals, quarantine
):
    run = bench(marked_csv(64, dict.fromkeys(range(64), KILLS)))
    worker = await pool.load(fatal_release())
    await run.run(worker)
    found = totals(await run.take())
    assert (found.in_count, found.ok, found.failed) == (64, 0, {"quarantined": 64})
    assert worker.restarts == 5
    assert [one.fresh for _, one in _windows_set_aside(quarantine)] == [1, 1, 1, 61]
    assert [one.code for one in run.incidents] == ["worker-crashed"] * 2 + ["quarantined"] * 4
