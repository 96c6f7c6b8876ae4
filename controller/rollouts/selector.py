"""Selectors: which devices a rollout means. Pure.

`*`, or terms that must all hold, separated by blanks: `site:jfk,lga !profile:raspberry-pi-4
device:gw-1 label.line=3`. Values of one term are alternatives; `!` negates a term.

>>> matches(parse_selector("site:jfk,lga !device:gw-2"), "gw-1", "jfk", "", {})
True
>>> matches(parse_selector("site:jfk,lga !device:gw-2"), "gw-2", "jfk", "", {})
False
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shoal.errors import InvalidInputError

MAX_CHARACTERS = 400
_TERM = re.compile(
    r"(?P<no>!?)(?:(?P<field>site|profile|device):|label\.(?P<label>[A-Za-z0-9_.-]{1,63})=)"
    r"(?P<values>[A-Za-z0-9_.-]{1,120}(?:,[A-Za-z0-9_.-]{1,120})*)\Z"
)


@dataclass(frozen=True, slots=True)
class Term:
    """One condition."""

    field: str
    """site, profile, device, or label.<name>."""
    values: frozenset[str]
    negated: bool


def parse_selector(text: str) -> tuple[Term, ...]:
    """Return the terms; none of `*`. Raises `InvalidInputError` naming the wrong term."""
    if not text.strip() or len(text) > MAX_CHARACTERS:
        raise InvalidInputError(
            f"selector: expected 1 to {MAX_CHARACTERS} characters, got {len(text)}",
            code="invalid-selector",
        )
    if text.strip() == "*":
        return ()
    return tuple(_parse(word) for word in text.split())


def matches(
    terms: tuple[Term, ...], device: str, site: str, profile: str, labels: Mapping[str, str]
) -> bool:
    """Whether a device is meant."""
    fields = {"device": device, "site": site, "profile": profile}
    for term in terms:
        label = term.field.removeprefix("label.")
        value = fields[label] if label == term.field else labels.get(label, "")
        if (value in term.values) == term.negated:
            return False
    return True


def _parse(word: str) -> Term:
    found = _TERM.match(word)
    if found is None:
        raise InvalidInputError(
            f"selector: {word[:80]!r}: expected *, site:…, profile:…, device:… or label.name=…, "
            "with commas between alternatives and ! before to exclude",
            code="invalid-selector",
        )
    field = found["field"] or f"label.{found['label']}"
    return Term(field, frozenset(found["values"].split(",")), bool(found["no"]))
