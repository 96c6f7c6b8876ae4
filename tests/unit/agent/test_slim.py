"""Slimming an environment: what is listed as unused goes, and nothing else."""

from __future__ import annotations

import pytest

from agent.slim import main, slim, unused_files


@pytest.fixture
def site(tmp_path):
    """Site-packages with a numpy, and a neighbour that it does not own."""
    folder = tmp_path / "site-packages"
    files = (
        "numpy/core.py",
        "numpy/linalg/tests/test_a.py",
        "numpy/f2py/src.py",
        "other/tests/b.py",
    )
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    cache = folder / "numpy" / "linalg" / "tests" / "__pycache__"
    cache.mkdir()
    (cache / "test_a.cpython-311.pyc").write_bytes(b"12345")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "mine.py").write_text("precious")
    record = [*files[:3], "numpy/../../tests/mine.py", "/etc/numpy/tests/x"]
    info = folder / "numpy-2.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("".join(f"{name},sha256=a,6\n" for name in record))
    return folder


def test_only_files_that_a_library_lists_and_nobody_loads_are_taken(site, tmp_path):
    assert {str(path.relative_to(site)) for path in unused_files(site)} == {
        "numpy/linalg/tests/test_a.py",
        "numpy/f2py/src.py",
    }
    assert slim(site) == 6 + 6 + 5
    left = {str(path.relative_to(site)) for path in site.rglob("*.py*")}
    assert left == {"numpy/core.py", "other/tests/b.py"}
    assert (tmp_path / "tests" / "mine.py").read_text() == "precious"


def test_slimming_twice_changes_nothing_more(site):
    slim(site)
    assert slim(site) == 0


def test_a_folder_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["slim", "/nowhere"])
    assert main() == 1
    assert "/nowhere: no such folder" in capsys.readouterr().err
