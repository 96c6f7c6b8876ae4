"""`docs/explanation/rollouts.md` and the code say the same about states, commands and options."""

from __future__ import annotations

import re
from itertools import product

import pytest

from controller.rollouts.states import (
    EXECUTION_STEPS,
    ROLLOUT_STEPS,
    VERBS,
    WAVE_STEPS,
    ExecutionState,
    RolloutState,
    WaveState,
)
from controller.rollouts.values import Specification

ROW = re.compile(r"^\| (.+) \|$", re.M)
CODE = re.compile(r"`([^`]+)`")


@pytest.fixture(scope="module")
def document(repository_root):
    return (repository_root / "docs" / "explanation" / "rollouts.md").read_text()


def _rows(document, heading):
    """Cells of the first table below a heading."""
    part = re.split(r"^#+ ", document.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.M)[0]
    rows = [row.split(" | ") for row in ROW.findall(part)]
    return rows[1:]


@pytest.mark.parametrize(
    ("heading", "steps", "states"),
    [
        ("Rollout", ROLLOUT_STEPS, RolloutState),
        ("Wave", WAVE_STEPS, WaveState),
        ("Execution", EXECUTION_STEPS, ExecutionState),
    ],
)
def test_document_has_every_step_with_who_may_cause_it(document, heading, steps, states):
    written: dict[tuple[str, str], set[str]] = {}
    for before, after, who, *_ in _rows(document, heading):
        for pair in product(CODE.findall(before), CODE.findall(after)):
            causes = written.setdefault(pair, set())
            assert causes.isdisjoint(who.split(", ")), f"{pair} stands twice"
            causes.update(who.split(", "))
    assert written == {(a.value, b.value): set(who) for (a, b), who in steps.items()}
    assert {name for pair in written for name in pair} == {state.value for state in states}


def test_document_has_every_verb_with_the_states_it_may_be_used_in(document):
    rows = _rows(document, "Commands")
    written = {CODE.findall(verb)[0]: set(CODE.findall(states)) for verb, states, _ in rows}
    assert written == {verb: {one.value for one in states} for verb, states in VERBS.items()}


def test_document_has_every_option_with_its_default(document):
    rows = _rows(document, "What can be set")
    written = {CODE.findall(name)[0]: default for name, default, _ in rows}
    assert set(written) == set(Specification.__struct_fields__) - {
        "model",
        "version",
        "resolved_from",
    }
    specification = Specification(model="m", version="1")
    for name, default in written.items():
        value = getattr(specification, name)
        if isinstance(value, bool):
            assert default == str(value).lower(), name
        elif isinstance(value, float):
            assert float(default) == value, name
