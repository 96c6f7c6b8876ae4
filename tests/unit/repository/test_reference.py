"""Reference pages that are made from code are as the code says."""

from __future__ import annotations

import subprocess
import sys


def test_every_page_that_is_made_from_code_is_as_the_code_says(repository_root):
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"],
        cwd=repository_root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
