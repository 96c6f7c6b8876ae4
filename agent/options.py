"""Tables of the configuration: which keys a kind of source or action knows, and what they hold.

A kind declares its keys as data; one function finds every mistake of a table at once, another
fills in the defaults. Third parties declare theirs the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

REQUIRED = object()
"""Default of a key that has none."""
KeyType = Literal["text", "integer", "number", "bool", "table", "tables", "texts"]


@dataclass(frozen=True, slots=True)
class Key:
    """What one key may hold. `table` maps text to text, `texts` is a list of text, `tables` a
    list of tables that the kind reads itself."""

    type: KeyType
    default: Any = REQUIRED
    low: float = 0.0
    high: float = 1e12
    choices: tuple[str, ...] = ()

    def problem(self, value: Any) -> str:
        """What is wrong with a value, "" if nothing."""
        if not _TYPES[self.type](value):
            return f"expected {_WORDS[self.type]}, got {value!r}"
        if self.type in ("integer", "number") and not self.low <= value <= self.high:
            return f"{value} is not between {self.low:g} and {self.high:g}"
        if self.choices and value not in self.choices:
            known = ", ".join(choice for choice in self.choices if choice)
            return f"expected one of {known}, got {value!r}"
        if self.type == "text" and self.default is REQUIRED and not value:
            return "is empty"
        return ""


def find_problems(at: str, table: Mapping[str, Any], keys: Mapping[str, Key]) -> list[str]:
    """Every mistake of a table, as sentences that begin with the key's path."""
    found = [f"{at}.{name}: is not known" for name in table if name not in keys]
    for name, key in keys.items():
        if name not in table:
            if key.default is REQUIRED:
                found.append(f"{at}.{name}: is missing")
        elif problem := key.problem(table[name]):
            found.append(f"{at}.{name}: {problem}")
    return found


def with_defaults(table: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
    """The table with a value for every key; it was checked before."""
    return {name: table.get(name, key.default) for name, key in keys.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "text": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": _is_number,
    "bool": lambda v: isinstance(v, bool),
    "table": lambda v: isinstance(v, dict) and all(isinstance(one, str) for one in v.values()),
    "tables": lambda v: isinstance(v, list) and all(isinstance(one, dict) for one in v),
    "texts": lambda v: isinstance(v, list) and all(isinstance(one, str) for one in v),
}
_WORDS = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "bool": "true or false",
    "table": "a table of text",
    "tables": "a list of tables",
    "texts": "a list of text",
}
