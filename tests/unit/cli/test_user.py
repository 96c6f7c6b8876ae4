"""`shoal user`: where a password comes from."""

from __future__ import annotations

import io

import pytest

from shoal.cli.user import read_password
from shoal.errors import InvalidInputError


def test_password_is_the_first_line_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a horse, a battery\r\nmore\n"))
    assert read_password() == "a horse, a battery"


@pytest.mark.parametrize("text", ["", "\n", "x" * 5000])
def test_no_password_or_an_endless_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(InvalidInputError, match="standard input"):
        read_password()
