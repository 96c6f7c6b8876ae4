"""What the text of the repository must and must not hold."""

from __future__ import annotations

import re

import pytest

TEXT_SUFFIXES = {".py", ".md", ".toml", ".sh", ".service", ".html", ".css", ".yaml", ".lock", ""}
MAX_README_WORDS = 600
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
FORBIDDEN = {
    "work that is not done": re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"),
    "somebody's own folder": re.compile(r"(?<![\w.{}])/(home|root|work|workspace|Users)/\w"),
    "a package index": re.compile(r"files[.]pythonhosted|/simpl[e]/|extra[-]index"),
    "a check switched off without a reason": re.compile(r"# (type: ignore|noqa)\s*$", re.M),
}


def _texts(tracked):
    return [path for path in tracked if path.suffix in TEXT_SUFFIXES]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(tracked, what, repository_root):
    found = [
        f"{path.relative_to(repository_root)}: {match[0]}"
        for path in _texts(tracked)
        for match in FORBIDDEN[what].finditer(path.read_text())
    ]
    assert found == []


def test_every_relative_link_leads_to_a_file(tracked, repository_root):
    broken = []
    for page in (path for path in tracked if path.suffix == ".md"):
        for match in LINK.finditer(page.read_text()):
            target = (match[1] or match[2]).partition("#")[0]
            elsewhere = not target or "://" in target or target.startswith("mailto:")
            if not elsewhere and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(repository_root)}: {target}")
    assert broken == []


def test_every_decision_is_numbered_once_and_has_its_parts(repository_root):
    pages = sorted((repository_root / "docs" / "decisions").glob("*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(set(numbers)) == len(numbers)
    for page in pages:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]} "), page.name
        for part in ("**Context.**", "**Outcome.**", "**Cost.**"):
            assert part in text, f"{page.name}: no {part}"


def test_readme_can_be_read_in_two_minutes(repository_root):
    text = (repository_root / "README.md").read_text()
    words = re.sub(r"```.*?```|<[^>]+>|\([^)]*\)", " ", text, flags=re.S).split()
    assert len(words) <= MAX_README_WORDS


def test_every_module_opens_with_a_docstring(tracked):
    bare = [
        str(path)
        for path in tracked
        if path.suffix == ".py" and not path.read_text().lstrip().startswith('"""')
    ]
    assert bare == []
