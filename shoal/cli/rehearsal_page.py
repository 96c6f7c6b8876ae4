"""A rehearsal as people read it: waves, what happened when, how it ended."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shoal.cli.watch import rollout_picture

Document = dict[str, Any]
_COLOURS = {"succeeded": "green", "passed": "green", "paused": "yellow", "inconclusive": "yellow"}
_BAD = ("failed", "aborted", "rolling_back", "rolled_back", "rollback_failed", "unfinished")


def rehearsal_page(found: Document) -> RenderableType:
    """The whole story."""
    counts = ", ".join(f"{count:,} {state}" for state, count in found["states"].items())
    parts: list[RenderableType] = [
        Text(f"{found['devices']:,} devices, {found['scenario']}: {found['words']}"),
        rollout_picture(found["rollout"], 0),
        _timeline(found["timeline"]),
        Text.assemble(
            (found["outcome"].replace("_", " "), _colour(found["outcome"])),
            f" after {clock(found['seconds'])} of the fleet's time: {counts}; "
            f"{found['messages']:,} messages, seed {found['seed']}",
        ),
    ]
    parts += [Text(f"before the start: {words}") for words in found["preview"]["warnings"]]
    return Group(*parts)


def clock(seconds: float) -> str:
    """Time since the start.

    >>> clock(3725)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))


def _timeline(rows: list[Document]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("AT", "WHAT", "STATE", "WHY"):
        table.add_column(title, overflow="fold", style="default")
    for row in rows:
        state = Text(row["state"].replace("_", " "), style=_colour(row["state"]))
        table.add_row(clock(row["seconds"]), row["what"], state, row["reason"])
    return table


def _colour(state: str) -> str:
    return "red" if state in _BAD else _COLOURS.get(state, "default")


class Progress:
    """The rollout as it goes, on a terminal; silent without one."""

    def __init__(self, screen: Console | None) -> None:
        self._live = Live(console=screen, auto_refresh=False, transient=True) if screen else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, document: Document, seconds: float) -> None:
        """Draw the rollout at a moment of the virtual clock."""
        if self._live is not None:
            head = Text(f"{clock(seconds)} of the fleet's time", style="bright_black")
            self._live.update(Group(head, rollout_picture(document, 0)), refresh=True)
