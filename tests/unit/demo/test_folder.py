"""The demo's folder is its own: fresh, kept when asked, and never somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_lib.folder import prepare_folder
from local_fleet.processes import LocalFleetError


def test_a_second_run_starts_fresh_unless_the_state_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / ".demo"
    assert not prepare_folder(folder, keep_state=True)
    (folder / "state").write_text("x")
    assert prepare_folder(folder, keep_state=True)
    assert (folder / "state").exists()
    assert not prepare_folder(folder, keep_state=False)
    assert not (folder / "state").exists()


def test_never_empties_what_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(LocalFleetError, match="not made by the demo"):
        prepare_folder(tmp_path, keep_state=False)
    assert (tmp_path / "thesis.tex").exists()


def test_refuses_a_file_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(LocalFleetError):
        prepare_folder(path, keep_state=False)
