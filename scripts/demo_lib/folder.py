"""The demo's own folder: fresh for every run, and never somebody else's files."""

from __future__ import annotations

import shutil
from pathlib import Path

from local_fleet.processes import LocalFleetError

MARKER = ".made-by-shoal-demo"


def prepare_folder(folder: Path, *, keep_state: bool) -> bool:
    """Make `folder` ready and say whether it holds the state of an earlier run.

    Emptied first, unless its state shall be kept. A folder that holds anything and was not made
    by the demo is refused.
    """
    marker = folder / MARKER
    if folder.exists() and not marker.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LocalFleetError(
            f"folder {folder}: not empty and not made by the demo; give another with --dir"
        )
    kept = keep_state and marker.exists()
    if marker.exists() and not kept:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return kept
