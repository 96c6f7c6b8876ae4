"""Reading a TOML table: typed values, every mistake remembered, and where each value came from."""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shoal.ids import is_name

ENVIRONMENT = "SHOAL_AGENT_"
"""`SHOAL_AGENT_DEVICE_ID` overrides `device.id`, and so on; not below `models`."""
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_\"'. -]+?)\s*=")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value, and where it comes from: `default`, `environment NAME` or `file:line`."""

    key: str
    value: Any
    origin: str


class Reader:
    """Takes values out of a table, remembering every mistake and every key it knows.

    A mistake is noted and answered with the default, so that one reading finds them all.
    """

    def __init__(self, table: dict[str, Any], text: str) -> None:
        self._table = table
        self._lines = find_lines(text)
        self._known: set[str] = set()
        self._problems: list[str] = []
        self._taken: dict[str, tuple[Any, str]] = {}

    def mistake(self, sentence: str) -> None:
        """Note something wrong, as a sentence that begins with the key's path."""
        self._problems.append(sentence)

    def text(self, key: str, default: str | None = None) -> str:
        """Text; without a default it must be there and hold something."""
        value = self.take(key, default)
        if not isinstance(value, str):
            self.mistake(
                f"{key}: is missing" if value is None else f"{key}: expected text, got {value!r}"
            )
            return ""
        if value == "" and default is None:
            self.mistake(f"{key}: is empty")
        return value

    def name(self, key: str) -> str:
        """An identifier."""
        value = self.text(key)
        if value and not is_name(value):
            self.mistake(f"{key}: {value!r} may hold only a-z, 0-9 and '-'")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number between two others, both allowed."""
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.mistake(f"{key}: expected a number, got {value!r}")
            return default
        if not low <= value <= high:
            self.mistake(f"{key}: {value} is not between {low:g} and {high:g}")
            return default  # TOML knows nan and inf, which the caller could not make an int of
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            self.mistake(f"{key}: expected true or false, got {value!r}")
            return default
        return value

    def take(self, key: str, default: Any) -> Any:
        """Whatever stands at a key, or in the environment for it."""
        self._known.add(key)
        variable = f"{ENVIRONMENT}{key.replace('.', '_').upper()}"
        if (text := os.environ.get(variable)) is not None:
            value = _from_environment(text, default)
            self._taken[key] = (value, f"environment {variable}")
            return value
        found: Any = self._table
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                self._taken[key] = (default, "default")
                return default
            found = found[part]
        self._taken[key] = (found, "file")
        return found

    def models(self) -> Any:
        """What stands below `models`, whose keys are the integrator's own."""
        self._known.add("models")
        return self._table.get("models", {})

    def finish(self) -> list[str]:
        """Every mistake, unknown keys among them."""
        self._unknown(self._table, "")
        return self._problems

    def settings(self, name: str) -> list[Setting]:
        """Every value that was taken, and what stands below `models`, in the order of the file."""
        found = [
            Setting(key, value, self._origin(name, key, where))
            for key, (value, where) in self._taken.items()
            if value is not None or where != "default"
        ]
        for key, value in _flat(self._table.get("models", {}), "models"):
            found.append(Setting(key, value, self._origin(name, key, "file")))
        return found

    def _origin(self, name: str, key: str, where: str) -> str:
        if where != "file":
            return where
        parts = key.split(".")
        for length in range(len(parts), 0, -1):  # an inline table has the line of its beginning
            if (line := self._lines.get(".".join(parts[:length]))) is not None:
                return f"{name}:{line}"
        return name

    def _unknown(self, table: dict[str, Any], at: str) -> None:
        for key, value in table.items():
            full = f"{at}{key}"
            if full == "models" or full in self._known:
                continue
            if isinstance(value, dict) and any(k.startswith(f"{full}.") for k in self._known):
                self._unknown(value, f"{full}.")
            else:
                self.mistake(f"{full}: is not known")


def find_lines(text: str) -> dict[str, int]:
    """The line of each table and key of a TOML text, as far as a plain reading goes.

    >>> find_lines('[a]\\nb = 1\\n[[a.c]]\\nd.e = 2\\n')
    {'a': 1, 'a.b': 2, 'a.c': 3, 'a.c.0': 3, 'a.c.0.d.e': 4}
    """
    lines: dict[str, int] = {}
    at, seen = "", Counter[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            at = _plain(header[2])
            lines.setdefault(at, number)
            if header[1] == "[[":
                seen[at] += 1
                at = f"{at}.{seen[at] - 1}"
                lines[at] = number
        elif key := _KEY.match(line):
            lines.setdefault(".".join(filter(None, (at, _plain(key[1])))), number)
    return lines


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))


def _flat(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested tables; lists of tables by number."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, f"{at}.{key}")
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        for number, one in enumerate(value):
            yield from _flat(one, f"{at}.{number}")
    else:
        yield at, value


def _from_environment(text: str, default: Any) -> Any:
    """Text stays text where text is wanted; else what TOML would make of it."""
    if isinstance(default, str) or default is None:
        return text
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
