"""The level of logs, from outside; and addresses without the parts that no log may show."""

from __future__ import annotations

import logging

import pytest

from shoal import logs
from shoal.addresses import shown, tells_secrets


@pytest.mark.parametrize(
    ("asked", "level"),
    [(None, "INFO"), ("debug", "DEBUG"), ("WARNING", "WARNING"), ("loud", "INFO"), ("", "INFO")],
)
def test_the_environment_says_the_level_and_another_word_counts_as_info(monkeypatch, asked, level):
    monkeypatch.delenv(logs.VARIABLE, raising=False)
    if asked is not None:
        monkeypatch.setenv(logs.VARIABLE, asked)
    assert logs.default_level() == level


def test_a_word_that_is_no_level_is_told(monkeypatch, capsys):
    monkeypatch.setenv(logs.VARIABLE, "loud")
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    logs.begin()
    assert "expected one of debug, info, warning, error, got 'loud'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://plant:8080/a/b", "http://plant:8080/a/b"),
        ("http://me:pass@word@plant/a", "http://plant/a"),
        ("https://plant/a?token=x#y", "https://plant/a"),
        ("https://[::1]:9/a", "https://[::1]:9/a"),
        ("http://[broken?token=x", "an address that cannot be read"),
        ("me:word", "an address without a host"),
        ("", "an address without a host"),
    ],
)
def test_an_address_is_shown_without_login_query_and_fragment(address, said):
    assert shown(address) == said
    assert tells_secrets(address) == any(one in address for one in "@?#")
