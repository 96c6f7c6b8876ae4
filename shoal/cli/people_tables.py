"""Users, API tokens and the audit log as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from shoal.cli.render import clock, plain_table

Document = dict[str, Any]


def user_table(users: list[Document]) -> Table:
    """One line a user."""
    found = plain_table("NAME", "ROLE", "ADDED", "BY", "SIGNED IN", "ACCOUNT")
    for one in users:
        found.add_row(
            one["name"],
            one["role"],
            clock(one["created_ms"]),
            one["created_by"],
            clock(one["last_sign_in_ms"]),
            "disabled" if one["disabled_ms"] else "active",
        )
    return found


def token_table(tokens: list[Document]) -> Table:
    """One line an API token."""
    found = plain_table("TOKEN", "NAME", "ROLE", "OF", "EXPIRES", "LAST USED", "REVOKED")
    for one in tokens:
        found.add_row(
            one["token_id"],
            one["name"],
            one["role"],
            one["owner"] or "–",
            clock(one["expires_ms"]),
            clock(one["last_used_ms"]),
            clock(one["revoked_ms"]),
        )
    return found


def audit_table(rows: list[Document]) -> Table:
    """One line a change."""
    found = plain_table("ROW", "WHEN", "WHO", "DID", "TO WHAT")
    for one in rows:
        found.add_row(
            str(one["id"]), clock(one["ts_ms"]), one["actor"], one["action"], one["subject"]
        )
    return found
