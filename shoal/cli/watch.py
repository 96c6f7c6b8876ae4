"""Pictures of a rollout: its waves as bars, its gates as one line. Pure: documents to text.

↻ r-42  weather 1 → 2  target *  9 devices
WAVE     ━━━━━━━━━━━━━━━━━━━━  DONE  FAILED  STATE
canary   ━━━━━━━━━━━━━━━━━━━━   2/2       0  ✔ done
gates  ✔ error rate 0.005 ≤ 0.02
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

BAR_WIDTH = 40
_MARKS = {
    "pending": ("·", "waiting", "bright_black"),
    "releasing": ("↻", "releasing", "cyan"),
    "soaking": ("◌", "soaking", "yellow"),
    "evaluating": ("◌", "evaluating", "yellow"),
    "passed": ("✔", "done", "green"),
    "failed": ("✘", "failed", "red"),
    "inconclusive": ("?", "inconclusive", "yellow"),
}
_ROLLOUT_MARKS = {
    "draft": ("·", "bright_black"),
    "awaiting_approval": ("?", "yellow"),
    "scheduled": ("·", "bright_black"),
    "running": ("↻", "cyan"),
    "paused": ("‖", "yellow"),
    "succeeded": ("✔", "green"),
    "aborted": ("✘", "red"),
    "rolling_back": ("↺", "yellow"),
    "rolled_back": ("↺", "red"),
    "rollback_failed": ("✘", "red"),
}
_VERDICTS = {"pass": ("✔", "green"), "fail": ("✘", "red")}


def rollout_picture(rollout: Document, now_ms: int) -> RenderableType:
    """The whole picture: headline, waves, gates, and the reason where there is one."""
    parts: list[RenderableType] = [_headline(rollout), _waves(rollout, now_ms)]
    gates = _gates(rollout)
    if gates is not None:
        parts.append(gates)
    if rollout.get("schedule"):
        parts.append(Text(rollout["schedule"], style="bright_black"))
    if rollout.get("reason"):
        parts.append(Text(f"{rollout['state']}: {rollout['reason']}", style="bold"))
    return Group(*parts)


def rollout_line(rollout: Document) -> str:
    """The same in one plain line, for logs and pipes."""
    waves = ", ".join(
        f"{wave['name']} {wave['done']}/{wave['size']} {_word(wave)}" for wave in rollout["waves"]
    )
    reason = f": {rollout['reason']}" if rollout.get("reason") else ""
    return f"{rollout['rollout']} {rollout['state']} [{waves}]{reason}"


def _headline(rollout: Document) -> Text:
    mark, colour = _ROLLOUT_MARKS.get(rollout["state"], ("?", "default"))
    previous = rollout.get("previous_version")
    versions = f"{previous} → {rollout['version']}" if previous else str(rollout["version"])
    size = sum(wave["size"] for wave in rollout["waves"])
    return Text.assemble(
        (f"{mark} ", colour),
        (str(rollout["rollout"]), "bold"),
        (f" {rollout['model']} {versions}", "cyan"),
        "  target ",
        (str(rollout["selector"]), "magenta"),
        f"  {size:,} devices",
    )


def _waves(rollout: Document, now_ms: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("WAVE")
    table.add_column("", width=BAR_WIDTH)
    table.add_column("DONE", justify="right")
    table.add_column("FAILED", justify="right")
    table.add_column("STATE")
    for wave in rollout["waves"]:
        failed = wave["failed"]
        table.add_row(
            str(wave["name"]),
            _bar(wave),
            f"{wave['done']:,}/{wave['size']:,}",
            Text(f"{failed:,}", style="red" if failed else ""),
            _state(wave, rollout, now_ms),
        )
    return table


_AT_LEAST = ("enough data",)
"""Gates whose limit is the least that passes."""


def _bar(wave: Document) -> ProgressBar:
    return ProgressBar(
        total=max(1, wave["size"]),
        completed=wave["done"],
        width=BAR_WIDTH,
        complete_style="red" if wave["state"] == "failed" else "green",
        finished_style="green",
    )


def _word(wave: Document) -> str:
    return _MARKS.get(wave["state"], ("", str(wave["state"]), ""))[1]


def _state(wave: Document, rollout: Document, now_ms: int) -> Text:
    mark, word, colour = _MARKS.get(wave["state"], ("?", str(wave["state"]), "default"))
    left = _soak_left_seconds(wave, rollout, now_ms)
    clock = f" {left // 60}:{left % 60:02d}" if left is not None else ""
    return Text(f"{mark} {word}{clock}", style=colour)


def _soak_left_seconds(wave: Document, rollout: Document, now_ms: int) -> int | None:
    soak = (rollout.get("options") or {}).get("soak_seconds")
    if wave["state"] != "soaking" or not wave.get("soaking_ms") or soak is None:
        return None
    return max(0, round(float(soak) - (now_ms - int(wave["soaking_ms"])) / 1000))


def _gates(rollout: Document) -> Text | None:
    """Gates of the newest wave that has any."""
    for wave in reversed(rollout["waves"]):
        if wave.get("gates"):
            text = Text("gates")
            for gate in wave["gates"]:
                mark, colour = _VERDICTS.get(str(gate["verdict"]), ("?", "yellow"))
                text.append(f"  {mark} ", style=colour).append(_gate_words(gate))
            return text
    return None


def _gate_words(gate: Document) -> str:
    if gate["verdict"] == "not-judged":
        return f"{gate['name']} not judged"
    if gate.get("value") is None:
        return f"{gate['name']} no data yet"
    wanted, missed = ("≥", "<") if gate["name"] in _AT_LEAST else ("≤", ">")
    relation = missed if gate["verdict"] == "fail" else wanted
    return f"{gate['name']} {gate['value']:.3g} {relation} {gate['limit']:.3g}"
