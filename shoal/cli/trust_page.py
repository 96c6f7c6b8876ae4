"""The repository's standing, for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from shoal.cli.render import clock, plain_table

Document = dict[str, Any]


def trust_page(status: Document) -> RenderableType:
    """Roles with their keys, and what people should do."""
    table = plain_table("ROLE", "VERSION", "SIGN", "KEYS", "VALID UNTIL", "STATE")
    for one in status["roles"]:
        keys = one["keys"]
        table.add_row(
            one["role"],
            str(one["version"]),
            f"{one['threshold']} of {len(keys)}",
            ", ".join(key["key_id"][:12] for key in keys),
            clock(one["expires_ms"]),
            one["state"],
        )
    for role, keys in status["online_keys"].items():
        if role == "director":
            names = ", ".join(key["key_id"][:12] for key in keys)
            table.add_row(role, "", "", names, "", "")
    return Group(table, *[Text(f"! {sentence}") for sentence in status["warnings"]])
