"""How selectors look on a terminal. Pure."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

SHOWN = 20


def selector_table(found: list[Document]) -> Table:
    """One line a saved selector."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("NAME", "DEVICES", "KIND", "SELECTOR", "NOTE"):
        table.add_column(column, overflow="fold")
    for one in found:
        kind = "static" if one["static"] else "saved"
        table.add_row(one["name"], f"{one['matched']:,}", kind, one["selector"], one["note"])
    return table


def selector_page(document: Document) -> RenderableType:
    """Counts first, then the devices, then who is not there or cannot run the release."""
    parts = [Text(f"{document['matched']:,} of {document['of']:,} devices match", style="bold")]
    for words, counts in (("states", document["states"]), ("sites", document["sites"])):
        if counts:
            parts.append(Text(f"{words}: " + ", ".join(f"{k} {n:,}" for k, n in counts.items())))
    parts.append(Text(_first(document["devices"], document["matched"])))
    for words, style in (("offline", "yellow"), ("incompatible", "red")):
        lines = [one["sentence"] for one in document[words]]
        parts += [Text(f"{words}: {line}", style=style) for line in lines[:SHOWN]]
        if len(lines) > SHOWN:
            parts.append(Text(f"{words}: and {len(lines) - SHOWN:,} more", style=style))
    return Group(*parts)


def _first(names: list[str], count: int) -> str:
    more = count - len(names[:SHOWN])
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
