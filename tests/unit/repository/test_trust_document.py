"""Every attack of `docs/explanation/trust.md` has its tests, and they are there."""

from __future__ import annotations

import re

import pytest

ROW = re.compile(r"^\| (\d+) \| (.+?) \|", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
ATTACKS = 37


@pytest.fixture(scope="module")
def document(repository_root):
    return (repository_root / "docs" / "explanation" / "trust.md").read_text()


def test_each_attack_has_one_row(document):
    assert [int(number) for number, _ in ROW.findall(document)] == list(range(1, ATTACKS + 1))


def test_each_row_names_tests(document):
    rows = [line for line in document.splitlines() if ROW.match(line)]
    assert [line for line in rows if not TEST.search(line)] == []


def test_each_test_that_is_named_exists(document, repository_root):
    missing = []
    for file, name in TEST.findall(document):
        path = repository_root / file
        text = path.read_text() if path.exists() else ""
        if not text or (name and f"def {name}(" not in text):
            missing.append(f"{file}::{name}")
    assert missing == []
