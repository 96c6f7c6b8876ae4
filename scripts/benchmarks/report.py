"""Figures as people read them: a line on a terminal, and the tables of README and documents.

Pure, so that the tables come from a file of figures and not from a fresh measurement.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.figure import Figure

Document = dict[str, Any]
_MEETS: dict[str, Callable[[float, float], bool]] = {
    "≤": operator.le,
    "<": operator.lt,
    "≥": operator.ge,
    "=": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure shall be."""

    relation: str
    value: float

    def met(self, value: float) -> bool:
        """Whether `value` is good enough."""
        return _MEETS[self.relation](value, self.value)

    def __str__(self) -> str:
        return f"{self.relation} {self.value:,g}"


GOALS = {
    "agent_pss": Goal("≤", 30),
    "model_pss": Goal("≤", 22),
    "worker_pss": Goal("≤", 22),
    "model_pss_c": Goal("≤", 22),
    "updater_peak": Goal("≤", 60),
    "install_size": Goal("≤", 150),
    "install_size_slim": Goal("≤", 150),
    "install_size_small": Goal("≤", 150),
    "worker_ready": Goal("≤", 25),
    "pipeline_ratio_resnet": Goal("≥", 0.8),
    "pipeline_ratio_autoencoder": Goal("≥", 0.5),
    "added_latency_p99": Goal("≤", 1),
    "crash_recovery": Goal("≤", 50),
    "hang_recovery_over_deadline": Goal("≤", 50),
    "swap_gap_max": Goal("≤", 50),
    "swap_lost": Goal("=", 0),
    "loop_lag_p99": Goal("≤", 20),
    "refresh_bytes": Goal("≤", 2000),
    "refresh_time": Goal("≤", 150),
    "enrol_to_first_release": Goal("≤", 5),
    "update_cost": Goal("≤", 150),
    "window_bytes": Goal("≤", 1500),
    "false_alarms_fleet": Goal("<", 1),
    "false_alarms_device": Goal("≤", 1),
    "delay_device_half_sigma": Goal("≤", 8),
    "delay_fleet_quarter_sigma": Goal("≤", 5),
    "bad_release_stopped": Goal("≥", 0.95),
    "harmless_release_stopped": Goal("≤", 0.01),
    "plan_100k": Goal("≤", 2),
    "assign_10k": Goal("≤", 5),
    "tick_100k": Goal("≤", 1),
    "released_per_minute": Goal("≥", 1000),
    "ingest_ratio": Goal("≥", 0.5),
    "cpu_100k": Goal("≤", 1),
    "rss_100k": Goal("≤", 400),
    "visible_p99": Goal("≤", 2),
    "cost_growth": Goal("≤", 1.2),
    "cli_help": Goal("≤", 250),
    "metrics_scrape_100k": Goal("≤", 250),
}

FOOTPRINT = {
    "agent_pss": "agent, connected, no model",
    "model_pss": "first model adds, its forkserver included (ResNet-8 int8)",
    "worker_pss": "of that, the model's own process",
    "model_pss_c": "the same on the C library, without numpy",
    "install_size": "installed, LiteRT included",
    "pipeline_ratio_resnet": "rows/s ÷ bare interpreter, ResNet-8 int8",
    "pipeline_ratio_autoencoder": "rows/s ÷ bare interpreter, autoencoder int8",
    "crash_recovery": "worker killed to next answer",
    "swap_gap_max": "longest gap over 100 model swaps at 500 Hz",
    "ingest_ratio": "messages/s committed ÷ bare subscriber",
    "cpu_100k": "controller and broker for 100,000 devices",
}


def line(figure: Figure) -> str:
    """One figure for a terminal."""
    low, high = figure.spread
    text = f"{figure.name:32} {figure.value:>10g} {figure.unit:12} ({low:g} – {high:g})"
    goal = GOALS.get(figure.name)
    if goal is not None:
        text += f"  goal {goal}" if goal.met(figure.value) else f"  goal {goal}: NOT MET"
    if figure.baseline is not None:
        other = figure.baseline
        text += f"  of {other['what']}: {other['value']:g} {other['unit']}"
    return text


def markdown(lists: list[list[Document]]) -> str:
    """README's footprint, then everything, of each list; a list is of one machine."""
    return "\n\n".join(_footprint(one) + "\n\n" + _everything(one) for one in lists if one)


def _footprint(figures: list[Document]) -> str:
    known = {one["name"]: one for one in figures}
    rows = [
        f"| {words} | {_plain(known[name])} |" for name, words in FOOTPRINT.items() if name in known
    ]
    return "\n".join(["| | |", "|---|---:|", *rows, "", f"On {figures[0]['machine']}."])


def _everything(figures: list[Document]) -> str:
    head = ["| figure | median | spread | goal | beside it |", "|---|---:|---|---|---|"]
    return "\n".join([*head, *map(_row, figures), "", f"On {figures[0]['machine']}."])


def _row(one: Document) -> str:
    goal = GOALS.get(one["name"])
    wanted = "" if goal is None else str(goal) + ("" if goal.met(one["value"]) else ", not met")
    low, high = one["spread"]
    beside = one["baseline"]
    bare = f"{beside['what']} {beside['value']:,g} {beside['unit']}" if beside else ""
    return f"| `{one['name']}` | {_plain(one)} | {low:,g} – {high:,g} | {wanted} | {bare} |"


def _plain(one: Document) -> str:
    value = one["value"]
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    beside = one["baseline"]
    if one["unit"] == "ratio":
        return f"{text} of {beside['value']:,.0f} {beside['unit']}" if beside else text
    return f"{text} {one['unit']}"
