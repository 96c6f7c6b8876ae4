"""Telling people what the demo does: a spinner and colours on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


class Progress:
    """Numbered steps with their times; everything is printed at once, also into a pipe."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._number = 0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step; its time is printed when it is done."""
        self._number += 1
        started = time.monotonic()
        self.say(f"[bold]{self._number}/{self._steps}[/] {escape(title)}")
        if self._console.is_terminal:
            with self._console.status(escape(title)):
                yield
        else:
            yield
        self.say(f"    [green]done[/] in {time.monotonic() - started:.1f} s")

    def note(self, text: str) -> None:
        """Something seen during a step."""
        self.say(f"    {escape(text)}")

    def say(self, markup: str) -> None:
        """A line of its own."""
        self._console.print(markup, soft_wrap=True, highlight=False)
