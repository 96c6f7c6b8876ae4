"""The audit log's chain of hashes: each row's hash covers the row and the hash before it.

Whoever has the rows can check them, without trusting the controller that gave them. Changing or
removing any row but the newest ones breaks the chain; who has once noted a hash (`newest`) can
tell later that the newest are still there too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shoal.errors import InvalidInputError

GENESIS = "0" * 64
FIELDS = ("ts_ms", "actor", "action", "subject", "data", "previous")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk along the chain found."""

    rows: int
    first_id: int | None
    newest: str
    """Hash of the newest row, to note and ask for later."""
    broken_id: int | None = None
    """The first row that does not fit."""
    why: str = ""

    @property
    def whole(self) -> bool:
        """Whether the chain holds."""
        return self.broken_id is None and not self.why


def hash_of(row: Row) -> str:
    """Hash of a row without its id and hash."""
    text = json.dumps([row[key] for key in FIELDS], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def walk(rows: Iterable[Row], *, start: str | None = GENESIS, noted: str = "") -> Verdict:
    """Follow the chain, oldest row first.

    `start` is the hash that the first row must name; None takes the first row's word for it, for
    a part of a log. `noted` is a hash that must be met on the way.
    """
    count, first_id, previous = 0, None, start
    met = not noted
    for row in rows:
        if first_id is None:
            first_id = row["id"]
            previous = row["previous"] if previous is None else previous
        why = _misfit(row, previous)
        if why:
            return Verdict(count, first_id, previous or GENESIS, row["id"], why)
        count, previous = count + 1, row["hash"]
        met = met or previous == noted
    why = "" if met else f"hash {noted[:16]}… was noted earlier and is not in the log any more"
    return Verdict(count, first_id, previous or GENESIS, None, why)


def parse_rows(found: Any) -> list[dict[str, Any]]:
    """Rows of an export, oldest first; raises where one is no row."""
    if isinstance(found, dict):
        found = found.get("items")
    if not isinstance(found, list) or not all(_is_row(row) for row in found):
        raise InvalidInputError(
            f"audit log: expected a list of rows with id, {', '.join(FIELDS)} and hash"
        )
    return sorted(found, key=lambda row: row["id"])


def _misfit(row: Row, previous: str | None) -> str:
    if row["previous"] != previous:
        return "it does not follow the row before it: a row was removed, added or changed"
    if row["hash"] != hash_of(row):
        return "its content is not what its hash was made of"
    return ""


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and type(row.get("id")) is int
        and all(key in row for key in (*FIELDS, "hash"))
    )
