"""Figures as tables: what is quoted says its spread, its goal and its machine."""

from __future__ import annotations

import pytest
from benchmarks.figure import figure, ratio_figure
from benchmarks.report import GOALS, Goal, line, markdown

UNIT_GROUPS = ("agent", "ingest", "statistics", "web")


def test_a_figure_is_the_median_with_smallest_and_largest():
    made = figure("worker_ready", "ms", [12.0, 9.0, 10.0])
    assert (made.value, made.spread) == (10.0, (9.0, 12.0))


def test_a_ratio_keeps_the_bare_side_of_the_same_runs():
    made = ratio_figure("ingest_ratio", [(50.0, 100.0), (90.0, 120.0)], "bare", "messages/s")
    assert made.value == pytest.approx(0.625)
    assert made.baseline == {"what": "bare", "value": 110.0, "unit": "messages/s"}


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("≤", 30), 30, True),
        (Goal("≤", 30), 30.1, False),
        (Goal("≥", 0.5), 0.49, False),
        (Goal("=", 0), 0, True),
        (Goal("=", 0), 1, False),
        (Goal("<", 1), 1, False),
    ],
)
def test_a_goal_is_met_or_not(goal, value, met):
    assert goal.met(value) is met


def test_a_line_says_when_a_goal_is_not_met():
    assert "NOT MET" in line(figure("worker_ready", "ms", [99.0]))
    assert "NOT MET" not in line(figure("worker_ready", "ms", [9.0]))


def test_the_tables_hold_every_figure_its_spread_and_the_machine():
    made = [
        figure("agent_pss", "MB", [22.0, 23.0]).document(),
        ratio_figure("ingest_ratio", [(1.0, 4.0)], "bare subscriber", "messages/s").document(),
    ]
    text = markdown([made])
    assert "| agent, connected, no model | 22.5 MB |" in text
    assert "| `agent_pss` | 22.5 MB | 22 – 23 | ≤ 30 |" in text
    assert "≥ 0.5, not met | bare subscriber 4 messages/s |" in text
    assert made[0]["machine"] in text


@pytest.mark.parametrize("group", UNIT_GROUPS)
def test_every_figure_with_a_goal_belongs_to_one_group(group):
    module = __import__(f"benchmarks.{group}", fromlist=["MEASUREMENTS"])
    assert set(module.MEASUREMENTS) <= set(GOALS)
