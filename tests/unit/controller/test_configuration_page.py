"""`docs/reference/controller.md` names every key of the configuration, and no other."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, is_dataclass

import pytest

from controller.config import OidcSettings, Settings

ROW = re.compile(r"^\| `([a-z_.]+)` \| (.*?) \|", re.MULTILINE)
UNSAID = ("path",)


def _keys(kind, at=""):
    """(key, default) of a dataclass of settings and those inside it."""
    for one in fields(kind):
        default = one.default if one.default is not MISSING else None
        if one.name == "oidc":
            yield from _keys(OidcSettings, "oidc.")
        elif is_dataclass(default):
            yield from _keys(type(default), f"{one.name}.")
        elif one.name not in UNSAID:
            yield at + one.name, default


@pytest.fixture(scope="module")
def page(repository_root):
    return dict(ROW.findall((repository_root / "docs/reference/controller.md").read_text()))


def test_every_key_is_there(page):
    assert set(page) == {key for key, _ in _keys(Settings)}


def test_defaults_are_those_of_the_code(page):
    numbers = {key: value for key, value in _keys(Settings) if isinstance(value, int | float)}
    for key, value in numbers.items():
        wanted = str(value).lower() if isinstance(value, bool) else f"{value:.10g}"
        assert page[key].replace(",", "") == wanted, key
