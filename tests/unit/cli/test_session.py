"""Where the token comes from, and how commands fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shoal.cli.exits import exit_code, rollout_exit_code
from shoal.cli.session import read_token
from shoal.client import ApiError, UnreachableError, WaitTimeoutError
from shoal.errors import InvalidInputError


@pytest.fixture(autouse=True)
def _no_token_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SHOAL_TOKEN_FILE", raising=False)


def test_reads_the_named_file_before_the_one_at_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / ".config/shoal/token"
    home.parent.mkdir(parents=True)
    home.write_text("home-token\n")
    assert read_token() == "home-token"
    named = tmp_path / "named"
    named.write_text("named-token\n")
    monkeypatch.setenv("SHOAL_TOKEN_FILE", str(named))
    assert read_token() == "named-token"


def test_no_file_at_home_is_no_token_but_a_missing_named_file_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert read_token() is None
    monkeypatch.setenv("SHOAL_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(InvalidInputError, match="no such file"):
        read_token()


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"\xff\xfe", b"x" * 5000])
def test_a_file_that_holds_no_token_is_refused(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    monkeypatch.setenv("SHOAL_TOKEN_FILE", str(path))
    with pytest.raises(InvalidInputError, match="holds no token"):
        read_token()


def test_exit_codes_are_the_documented_ones() -> None:
    assert exit_code(UnreachableError("x")) == 6
    assert exit_code(WaitTimeoutError("x", {})) == 5
    assert exit_code(ApiError("x", code="not-found", status=404)) == 1
    states = ["succeeded", "paused", "rolled_back", "aborted", "rollback_failed", "running"]
    assert [rollout_exit_code(state) for state in states] == [0, 3, 4, 4, 4, 1]


def test_a_failure_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from shoal.cli import main

    monkeypatch.setattr(sys, "argv", ["shoal", "fleet", "--url", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 6
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("shoal: controller http://127.0.0.1:1: no answer")
