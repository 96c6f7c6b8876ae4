"""Giving memory back, and finding out versions without importing what costs memory."""

from __future__ import annotations

import ctypes
import importlib.metadata
import subprocess
import sys

import pytest

from agent.installed import installed_version
from agent.introspect import RUNTIME_DISTRIBUTIONS
from agent.workers.trim import clean_file_mappings, trim_memory


def test_trimming_leaves_a_process_that_works():
    """The risk is to drop relocated data: everything loaded must still answer."""
    code = """
import sqlite3, ssl, numpy, agent.workers.trim as trim
before = numpy.linalg.norm(numpy.arange(100.0))
trim.trim_memory()
assert numpy.linalg.norm(numpy.arange(100.0)) == before
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
ssl.create_default_context()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_trimming_is_safe_to_repeat():
    trim_memory()
    trim_memory()
    assert ctypes.CDLL(None).getpid() > 0


@pytest.mark.parametrize(
    "line",
    [
        "1000-2000 rw-p 00000000 08:01 7 /lib/libm.so",  # may be changed
        "1000-2000 r--p 00000000 00:00 0",  # no file
        "1000-2000 r--p 00000000 00:00 0 [vdso]",
    ],
)
def test_only_mappings_of_files_that_nothing_writes_are_dropped(line):
    assert list(clean_file_mappings(f"{line}\nAnonymous: 0 kB\n")) == []


def test_the_version_by_folder_is_the_version_by_metadata():
    for name in RUNTIME_DISTRIBUTIONS:
        try:
            expected = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            expected = ""
        assert installed_version(name) == expected


def test_a_distribution_that_is_not_installed_has_no_version():
    assert installed_version("no-such-runtime") == ""
