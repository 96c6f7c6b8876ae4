"""The words that choose devices."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidInputError
from shoal.selector import MAX_CHARACTERS, Group, Subject, matches, parse_selector

HOUR_MS = 3_600_000
NOW_MS = 10 * HOUR_MS
FLEET = {
    "a": Subject("gw-a", "jfk", "pi", {"line": "3", "tag": "lab"}, "ok", NOW_MS, {"vib": "1.5"}),
    "b": Subject("gw-b", "jfk", "pi", {"room": "hall 3, left"}, "failing", NOW_MS - HOUR_MS),
    "c": Subject("gw-c", "lga", "nuc", {"line": "5"}, "offline", 0, {"vib": None, "hum": "2"}),
    "d": Subject("gw-d", "lga", "", {}, "unknown", None),
}
GROUPS = {
    "pilot": Group(None, frozenset({"gw-a", "gw-d", "gone"})),
    "well": Group(parse_selector("state:ok,failing")),
    "both": Group(parse_selector("group:well !group:pilot")),
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("*", "abcd"),
        ("  *  ", "abcd"),
        ("site:jfk", "ab"),
        ("site:jfk,lga", "abcd"),
        ("site:jfk !device:gw-a", "b"),
        ("site:jfk not device:gw-a", "b"),
        ("!profile:pi", "cd"),
        ("label.line=3", "a"),
        ("not label.line:3", "bcd"),
        ("label.none=3", ""),
        ("site:jfk label.line=3,4 profile:pi,nuc", "a"),
        ("site=jfk,profile=pi,device=gw-b", "b"),
        ("tag:lab", "a"),
        ("not tag:lab", "bcd"),
        ("model:vib", "ac"),
        ("model:vib@1.5", "a"),
        ("model:vib@1.5,hum", "ac"),
        ("not model:vib", "bd"),
        ("state:failing,offline", "bc"),
        ("seen:<1h", "a"),
        ("seen:<61m", "ab"),
        ("seen:>1h", "bcd"),
        ("not seen:>2h", "ab"),
        ("seen:<90s,>9h", "acd"),
        ('label.room:"hall 3, left"', "b"),
        ('label.room:"hall 3, left",x label.none:""', "b"),
        ("group:pilot", "ad"),
        ("group:well", "ab"),
        ("group:both", "b"),
        ("not group:both,pilot", "c"),
    ],
)
def test_a_selector_matches(text, found):
    terms = parse_selector(text)
    assert "".join(k for k, one in FLEET.items() if matches(terms, one, NOW_MS, GROUPS)) == found


@pytest.mark.parametrize(
    ("text", "found"), [("GW-", "abcd"), ("-b", "b"), ("gw state:ok", "a"), ("not -b -", "acd")]
)
def test_people_who_search_may_type_parts_of_a_name(text, found):
    terms = parse_selector(text, bare_words=True)
    assert "".join(k for k, one in FLEET.items() if matches(terms, one, NOW_MS)) == found


def test_a_label_is_no_substitute_for_a_field_that_is_empty():
    assert not matches(parse_selector("profile:pi"), Subject("gw", "jfk", labels={"profile": "pi"}))
    assert matches(parse_selector("label.site=x"), Subject("gw", "jfk", labels={"site": "x"}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected 1 to"),
        ("  ", "expected 1 to"),
        ("x" * (MAX_CHARACTERS + 1), "got 401"),
        ("site", "character 1: expected a field (device, site, profile"),
        ("site:", "character 6: expected a value of site, in quotes if it has other signs, got"),
        ("site:a colour:red", "character 8: expected a field (device, site, profile"),
        ("colour:red", "label.NAME), got 'colour:red'"),
        ("site:a,,b", "character 8: expected a value of site"),
        ("site:a;drop", "character 7: expected a blank, or a comma and another value, got ';drop'"),
        ("label.=3", "character 1: expected a field"),
        ("!*", "character 2: expected a field"),
        ("* *", "character 1: expected a field"),
        ("site:ä", "character 6: expected a value"),
        ("site:a\x00", "character 7: expected a blank"),
        ('site:"a\x00"', "signs that can be printed"),
        ('label.x:"open', "character 9: expected a value of label.x"),
        ("state:well", "character 7: expected a state (ok, degraded"),
        ("seen:1h", "character 6: expected an age such as <1h or >2d (s, m, h, d, w), got '1h'"),
        ("seen:<1y", "expected an age"),
        ("model:@1", "expected MODEL or MODEL@VERSION"),
        ("model:a@", "expected MODEL or MODEL@VERSION"),
        ("not", "character 1: expected a field"),
        ("not not site:a", "character 5: expected a field"),
    ],
)
def test_what_is_no_selector_is_refused_with_place_and_expectation(text, words):
    with pytest.raises(InvalidInputError) as error:
        parse_selector(text)
    assert error.value.code == "invalid-selector"
    assert words in error.value.sentence


@given(st.text(max_size=60) | st.text('abn:=,!"\\ <>1h@*.ot', max_size=60), st.booleans())
def test_any_text_is_a_selector_or_refused(text, bare_words):
    with contextlib.suppress(InvalidInputError):
        terms = parse_selector(text, bare_words=bare_words)
        known = {name: Group(()) for term in terms for name in term.values}
        matches(terms, FLEET["a"], NOW_MS, known)


@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20))
def test_any_label_can_be_said_in_quotes(value):
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    terms = parse_selector(f'label.x:"{quoted}"')
    assert matches(terms, Subject("gw", "jfk", labels={"x": value}))
