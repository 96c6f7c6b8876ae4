"""Following a rollout: live bars on a terminal, elsewhere a line a change, or JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.live import Live

from shoal.cli.session import console
from shoal.cli.watch import rollout_line, rollout_picture
from shoal.client import FINAL_STATES, Client, WaitTimeoutError

Document = dict[str, Any]

POLL_SECONDS = 0.5


def follow(client: Client, rollout: str, timeout: float, *, as_json: bool) -> str:
    """Tell of `rollout` until its state is final, and return that state."""
    if as_json:
        return _until_final(client, rollout, timeout, _each_change(json.dumps))
    screen = console()
    if screen.is_terminal:
        return _live(client, rollout, timeout, screen)
    return _until_final(client, rollout, timeout, _each_change(rollout_line))


def _live(client: Client, rollout: str, timeout: float, screen: Console) -> str:
    with Live(console=screen, auto_refresh=False) as live:

        def draw(document: Document) -> None:
            live.update(rollout_picture(document, time.time_ns() // 1_000_000), refresh=True)

        return _until_final(client, rollout, timeout, draw)


def _until_final(
    client: Client, rollout: str, timeout: float, tell: Callable[[Document], None]
) -> str:
    deadline = time.monotonic() + timeout
    while True:
        document = client.rollout(rollout)
        tell(document)
        if document["state"] in FINAL_STATES:
            return str(document["state"])
        if time.monotonic() >= deadline:
            raise WaitTimeoutError(
                f"rollout {rollout}: still {document['state']} after {timeout:g} s", document
            )
        time.sleep(POLL_SECONDS)


def _each_change(text_of: Callable[[Document], str]) -> Callable[[Document], None]:
    """Print a document's text, unless it is the same as the time before."""
    last = ""

    def tell(document: Document) -> None:
        nonlocal last
        text = text_of(document)
        if text != last:
            last = text
            typer.echo(text)

    return tell
