"""Which commands were answered, so that one who kept an old one gets no second answer. Pure.

The last `REMEMBERED` are known by name; of what is forgotten, the latest issue time stays, and
nothing issued until then is answered any more.

>>> seen = remember(Answered(), "c-1", 5)
>>> was_answered(seen, "c-1", 5), was_answered(seen, "c-2", 5)
(True, False)
"""

from __future__ import annotations

from msgspec import Struct

REMEMBERED = 64


class Answered(Struct, frozen=True):
    """Commands answered, oldest first: name and when each was issued."""

    commands: list[tuple[str, int]] = []
    forgotten_ms: int = -1


def was_answered(answered: Answered, command: str, issued_ms: int) -> bool:
    """Whether this is a replay."""
    known = any(command == name for name, _ in answered.commands)
    return known or issued_ms <= answered.forgotten_ms


def remember(answered: Answered, command: str, issued_ms: int) -> Answered:
    """Also this one."""
    commands = [*answered.commands, (command, issued_ms)]
    gone, kept = commands[:-REMEMBERED], commands[-REMEMBERED:]
    return Answered(kept, max([answered.forgotten_ms, *(issued for _, issued in gone)]))
