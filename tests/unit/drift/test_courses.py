"""What the drift page reads: written by the monitor, one row a field and place, the worst first."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from controller.database import reading
from controller.drift import alerts
from controller.drift.courses import POINTS, Wanted, list_courses
from controller.drift.watch import FLEET
from shoal.errors import InvalidInputError
from tests.unit.drift.conftest import HOUR_MS, LEARN, START_MS


def _run(fleet, monitor, names, first, count, change=lambda rows: rows, changed=()):
    for hour in range(first, first + count):
        for name in names:
            fleet.report(name, hour, change if name in changed else lambda rows: rows)
        while monitor.work(START_MS + (hour + 2) * HOUR_MS):
            pass


def _list(fleet, limit=100, after=None, **wanted):
    with reading(fleet.engine) as connection:
        return list_courses(connection, Wanted(**wanted), limit, after)


def _hotter(rows):
    return rows + np.array([4, 0], np.float32)


@pytest.fixture(scope="module")
def drifted(tmp_path_factory):
    """One of two devices went two deviations up."""
    from tests.unit.drift.conftest import Fleet

    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    fleet.add("gw-1", "north")
    fleet.add("gw-2", "south")
    monitor = fleet.monitor()
    _run(fleet, monitor, ["gw-1", "gw-2"], 0, LEARN + 10)
    _run(fleet, monitor, ["gw-1", "gw-2"], LEARN + 10, 10, _hotter, changed=["gw-1"])
    yield fleet
    fleet.engine.dispose()


def test_what_drifts_comes_first_with_its_device_effect_and_beginning(drifted):
    worst = _list(drifted)[0][0]
    assert (worst["site"], worst["field"], worst["standing"]) == ("north", "temp", "drifting")
    assert (worst["drifting"], worst["devices"], worst["worst_device"]) == (1, 1, "gw-1")
    assert worst["level"] > 1
    assert worst["effect"] == pytest.approx(2, abs=0.3)
    assert worst["psi"] > 0.25
    began = (worst["since_ms"] - START_MS) / HOUR_MS
    assert LEARN + 8 <= began <= LEARN + 12


def test_drifting_here_is_what_has_an_open_alert(drifted):
    with reading(drifted.engine) as connection:
        opened = alerts.list_alerts(connection, state="open")[0]
    told = {(one["family"], one["field"]) for one in opened if one["scope"] == "device"}
    shown = {(row["family"], row["field"]) for row in _list(drifted, drifting=True)[0]}
    assert told == shown


def test_a_course_remembers_its_newest_points(drifted):
    points = _list(drifted, site=FLEET, field="flow")[0][0]["points"]
    assert len(points) == POINTS
    assert [b[0] - a[0] for a, b in pairwise(points)] == [HOUR_MS] * 59
    assert points[0][1] is None  # it learned then
    assert points[-1][1] is not None


def test_a_field_that_still_learns_has_a_distance_and_no_level(fleet):
    fleet.add("gw-1", "north")
    monitor = fleet.monitor()
    _run(fleet, monitor, ["gw-1"], 0, 2)
    row = _list(fleet, site="north", field="temp")[0][0]
    assert (row["standing"], row["level"], row["since_ms"]) == ("learning", None, None)
    assert row["psi"] is not None


def test_pages_follow_each_other_without_gap_or_repeat(drifted):
    whole, _ = _list(drifted)
    seen, after = [], None
    while True:
        page, after = _list(drifted, limit=3, after=after)
        seen += page
        if after is None:
            break
    assert seen == whole
    with pytest.raises(InvalidInputError, match="cursor"):
        _list(drifted, after="00")
