"""Replacing a small text file in one step."""

from __future__ import annotations

import os
from pathlib import Path

OWNER_ONLY = 0o600
OWNER_AND_GROUP = 0o640


def replace_file(path: Path, text: str, mode: int) -> None:
    """Put `text` at `path`; a reader sees the old file or the new one, never a part.

    Not flushed to the disk: such files are written anew at each start.
    """
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
    temporary.replace(path)
