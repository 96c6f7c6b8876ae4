"""From reported statistics to alerts, over a real database."""

from __future__ import annotations

import numpy as np
import pytest

from controller.database import reading, writing
from controller.drift import alerts
from controller.drift.monitor import Monitor
from controller.errors import ConflictError, NotFoundError
from tests.unit.drift.conftest import HOUR_MS, LEARN, RULE, START_MS


def _hours(fleet, monitor, first, count, change=lambda rows: rows, device="gw-1", **more):
    for hour in range(first, first + count):
        fleet.report(device, hour, change, **more)
        while monitor.work(START_MS + (hour + 2) * HOUR_MS):
            pass


def _list(fleet, **query):
    with reading(fleet.engine) as connection:
        return alerts.list_alerts(connection, **query)[0]


def _hotter(rows):
    return rows + np.array([4, 0], np.float32)


def test_a_changed_feature_opens_one_alert_that_says_what_changed(fleet):
    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    assert _list(fleet) == []
    _hours(fleet, monitor, LEARN + 10, 12, _hotter)
    temps = [one for one in _list(fleet) if one["family"] == "inputs"]
    assert [(one["subject"], one["field"], one["kind"]) for one in temps] == [
        ("gw-1", "temp", "mean")
    ]
    assert temps[0]["sentence"].startswith("pump temp of gw-1: mean 24")
    assert "°C, expected " in temps[0]["sentence"]
    began = (temps[0]["started_ms"] - START_MS) / HOUR_MS
    assert LEARN + 8 <= began <= LEARN + 12


def test_an_alert_ends_when_the_stream_comes_back_and_is_the_same_when_it_leaves_soon(fleet):
    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    _hours(fleet, monitor, LEARN + 10, 8, _hotter)
    opened = len(_list(fleet))
    assert opened
    _hours(fleet, monitor, LEARN + 18, 120)
    assert _list(fleet) == []
    assert len(_list(fleet, state="ended")) == opened


def test_a_burst_of_missing_values_is_an_alert(fleet):
    def gaps(rows):
        rows[::2, 1] = np.nan
        return rows

    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    _hours(fleet, monitor, LEARN + 10, 6, gaps)
    found = [one for one in _list(fleet) if one["field"] == "flow"]
    assert any("missing share 50.0%, expected 0.0%" in one["sentence"] for one in found)


def test_a_stuck_sensor_is_an_alert_of_its_spread(fleet):
    def stuck(rows):
        rows[:, 1] = 60.0
        return rows

    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    _hours(fleet, monitor, LEARN + 10, 6, stuck)
    assert ("flow", "spread") in {(one["field"], one["kind"]) for one in _list(fleet)}


def test_a_changed_correlation_is_seen_by_the_projections_alone(fleet):
    def together(rows):
        rows[:, 1] = (rows[:, 0] - 20) * 2.5 + 60
        return rows

    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    _hours(fleet, monitor, LEARN + 10, 8, together)
    assert {one["family"] for one in _list(fleet)} == {"projections"}


def test_what_a_whole_site_sees_is_an_alert_of_the_site_and_of_the_fleet(fleet):
    names = [f"gw-{i}" for i in range(8)]
    for name in names:
        fleet.add(name)
    monitor = fleet.monitor()

    def all_report(first, count, change=lambda rows: rows):
        for hour in range(first, first + count):
            for name in names:
                fleet.report(name, hour, change)
            monitor.work(START_MS + (hour + 2) * HOUR_MS)

    all_report(0, LEARN * 2)
    all_report(LEARN * 2, 12, _hotter)
    found = [one for one in _list(fleet) if (one["family"], one["field"]) == ("inputs", "temp")]
    assert {one["scope"] for one in found} == {"site", "fleet"}


def test_a_restarted_monitor_goes_on_where_it_was_and_judges_nothing_twice(fleet):
    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    monitor.store(START_MS)
    _hours(fleet, monitor, LEARN + 10, 2, _hotter)  # judged, not stored: read again
    again = Monitor(fleet.engine, fleet.artifacts, RULE)
    _hours(fleet, again, LEARN + 12, 8, _hotter)
    assert [one["field"] for one in _list(fleet) if one["family"] == "inputs"] == ["temp"]
    assert again.late == 0


def test_statistics_from_the_future_or_too_late_are_counted_and_not_judged(fleet):
    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, 5)
    fleet.report("gw-1", 2)
    fleet.report("gw-1", 5000)
    monitor.work(START_MS + 7 * HOUR_MS)
    assert monitor.late == 2


def test_a_new_release_starts_the_outputs_anew_and_keeps_the_inputs(fleet):
    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    _hours(fleet, monitor, LEARN + 10, 1, release=2)
    standing = monitor.standing("gw-1", "pump")
    assert set(standing["inputs"].values()) == {"watching"}
    assert set(standing["outputs"].values()) == {"learning"}


def test_an_accepted_alert_ends_and_its_level_is_normal(fleet):
    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    _hours(fleet, monitor, LEARN + 10, 10, _hotter)
    with writing(fleet.engine) as connection:
        for one in _list(fleet):
            alerts.acknowledge(connection, one["id"], "ops", START_MS, note="new bath", accept=True)
    _hours(fleet, monitor, LEARN + 20, 30, _hotter)
    assert _list(fleet) == []


def test_acknowledging_is_recorded_and_needs_an_alert(fleet):
    fleet.add("gw-1")
    monitor = fleet.monitor()
    _hours(fleet, monitor, 0, LEARN + 10)
    _hours(fleet, monitor, LEARN + 10, 10, _hotter)
    number = _list(fleet)[0]["id"]
    with writing(fleet.engine) as connection:
        found = alerts.acknowledge(connection, number, "ops", 5, note="seen", accept=False)
        assert (found["acknowledged_by"], found["note"]) == ("ops", "seen")
        with pytest.raises(NotFoundError, match="alert 999999"):
            alerts.acknowledge(connection, 999999, "ops", 5, note="", accept=False)
    _hours(fleet, monitor, LEARN + 20, 120)
    with writing(fleet.engine) as connection, pytest.raises(ConflictError, match="has ended"):
        alerts.acknowledge(connection, number, "ops", 5, note="", accept=True)
