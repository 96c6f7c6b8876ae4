"""Selectors: which devices are meant. One grammar for API, CLI and pages. Pure.

`*`, or terms that must all hold. Values with commas between are alternatives; `!` or `not` before
a term excludes. `docs/reference/selectors.md` has every field.

>>> terms = parse_selector("site:jfk,lga not tag:lab seen:<1h")
>>> matches(terms, Subject("gw-1", "jfk", last_seen_ms=0), now_ms=1)
True
>>> matches(terms, Subject("gw-1", "jfk", labels={"tag": "lab"}, last_seen_ms=0), now_ms=1)
False
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from shoal.errors import InvalidInputError

MAX_CHARACTERS = 400
FIELDS = ("device", "site", "profile", "model", "state", "seen", "group")
DEVICE_STATES = ("ok", "degraded", "failing", "offline", "updating", "unknown")

_FIELD = re.compile(r"(label\.[A-Za-z0-9_.-]{1,63}|[A-Za-z_]+)[:=]")
_NOT = re.compile(r"!|not\s+(?=\S)")
_VALUE = re.compile(r"[A-Za-z0-9_.@<>+/-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_WORD = re.compile(r'[^\s,:="!]+')
_SHOWN = re.compile(r"[^\s,]*")
_AGE = re.compile(r"([<>])([0-9]{1,6})([smhdw])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@dataclass(frozen=True, slots=True)
class Age:
    """`<1h`: heard of since an hour ago; `>1h`: not since, or never."""

    newer: bool
    milliseconds: int


@dataclass(frozen=True, slots=True)
class Term:
    """One condition."""

    field: str
    """One of `FIELDS`, `label.<name>`, or `name`: a part of the device's name."""
    values: frozenset[str] = frozenset()
    ages: frozenset[Age] = frozenset()
    negated: bool = False


Terms = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """What a name stands for: a saved selector, or the devices of a static group."""

    terms: Terms | None = None
    devices: frozenset[str] = frozenset()


class Subject(Struct, frozen=True, gc=False):
    """What a selector may know of a device; a plan may make 100,000 of them."""

    device: str
    site: str
    profile: str = ""
    labels: Mapping[str, str] = {}
    state: str = "unknown"
    last_seen_ms: int | None = None
    models: Mapping[str, str | None] = {}
    """The version that runs, by model; None where none does."""


def parse_selector(text: str, *, bare_words: bool = False) -> Terms:
    """Return the terms; none of `*`. Raises `InvalidInputError` naming place and expectation.

    `bare_words`: a word without a field is a part of the device's name, as people search.
    """
    if not text.strip() or len(text) > MAX_CHARACTERS:
        raise InvalidInputError(
            f"selector: expected 1 to {MAX_CHARACTERS} characters, got {len(text)}",
            code="invalid-selector",
        )
    return () if text.strip() == "*" else _Reader(text, bare_words).terms()


def matches(
    terms: Terms, one: Subject, now_ms: int = 0, groups: Mapping[str, Group] | None = None
) -> bool:
    """Whether a device is meant; `groups` has what every `group:` of the terms stands for."""
    known = groups or {}
    return all(_holds(term, one, now_ms, known) != term.negated for term in terms)


def group_names(terms: Terms) -> frozenset[str]:
    """The groups that terms speak of."""
    return frozenset[str]().union(*(term.values for term in terms if term.field == "group"))


def _holds(term: Term, one: Subject, now_ms: int, groups: Mapping[str, Group]) -> bool:
    match term.field:
        case "seen":
            return any(_is_of_age(age, one.last_seen_ms, now_ms) for age in term.ages)
        case "model":
            return any(_runs(one, value) for value in term.values)
        case "name":
            return any(value in one.device.lower() for value in term.values)
        case "group":
            return any(_is_in(one, groups[value], now_ms, groups) for value in term.values)
        case "device" | "site" | "profile" | "state":
            return getattr(one, term.field) in term.values
        case _:
            return one.labels.get(term.field.removeprefix("label."), "") in term.values


def _is_of_age(age: Age, seen_ms: int | None, now_ms: int) -> bool:
    newer = seen_ms is not None and seen_ms > now_ms - age.milliseconds
    return newer is age.newer


def _runs(one: Subject, value: str) -> bool:
    model, _, version = value.partition("@")
    return model in one.models and (not version or one.models[model] == version)


def _is_in(one: Subject, group: Group, now_ms: int, groups: Mapping[str, Group]) -> bool:
    if group.terms is None:
        return one.device in group.devices
    return matches(group.terms, one, now_ms, groups)


class _Reader:
    """Reads terms from left to right, and says where it stopped."""

    def __init__(self, text: str, bare_words: bool) -> None:
        self._text = text
        self._bare_words = bare_words
        self._at = 0

    def terms(self) -> Terms:
        found = []
        while self._skip_blanks():
            found.append(self._term())
        return tuple(found)

    def _term(self) -> Term:
        negated = self._take(_NOT) is not None
        if negated:
            self._skip_blanks()
        start = self._at
        named = self._take(_FIELD)
        if named is None:
            return self._word(negated)
        name = "label.tag" if named[1] == "tag" else named[1]
        if name not in FIELDS and not name.startswith("label."):
            raise self._error(start, f"a field ({', '.join(FIELDS)}, tag, label.NAME)")
        values = [self._value(name)]
        while self._peek(",") and _FIELD.match(self._text, self._at + 1) is None:
            self._at += 1
            values.append(self._value(name))
        if self._peek(","):  # site=jfk,profile=pi: the comma ends the term
            self._at += 1
        elif self._at < len(self._text) and not self._text[self._at].isspace():
            raise self._error(self._at, "a blank, or a comma and another value")
        if name == "seen":
            return Term(name, ages=frozenset(map(_age, values)), negated=negated)
        return Term(name, frozenset(values), negated=negated)

    def _word(self, negated: bool) -> Term:
        start = self._at
        word = self._take(_WORD) if self._bare_words else None
        if word is None or (self._at < len(self._text) and not self._text[self._at].isspace()):
            what = f"a field ({', '.join(FIELDS)}, tag, label.NAME) and a colon"
            raise self._error(start, what + (", or a part of a name" if self._bare_words else ""))
        return Term("name", frozenset({word[0].lower()}), negated=negated)

    def _value(self, name: str) -> str:
        start = self._at
        quoted = self._take(_QUOTED)
        found = quoted or self._take(_VALUE)
        if found is None:
            raise self._error(start, f"a value of {name}, in quotes if it has other signs")
        value = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else found[0]
        expected = _expected(name, value)
        if expected:
            raise self._error(start, expected)
        return value

    def _skip_blanks(self) -> bool:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._at < len(self._text)

    def _peek(self, sign: str) -> bool:
        return self._text.startswith(sign, self._at)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _error(self, at: int, expected: str) -> InvalidInputError:
        rest = _SHOWN.match(self._text, at)
        got = repr(rest[0][:40]) if rest and rest[0] else repr(self._text[at : at + 1] or "the end")
        return InvalidInputError(
            f"selector, character {at + 1}: expected {expected}, got {got}",
            code="invalid-selector",
        )


def _expected(name: str, value: str) -> str:
    """What a value of a field has to be; "" if it is."""
    if not value.isprintable():
        return "signs that can be printed"
    if name == "state" and value not in DEVICE_STATES:
        return f"a state ({', '.join(DEVICE_STATES)})"
    if name == "seen" and not _AGE.fullmatch(value):
        return "an age such as <1h or >2d (s, m, h, d, w)"
    if name == "model" and not all(value.split("@", 1)):
        return "MODEL or MODEL@VERSION"
    return ""


def _age(value: str) -> Age:
    found = _AGE.fullmatch(value)
    assert found is not None, value
    return Age(found[1] == "<", int(found[2]) * _UNIT_MS[found[3]])
