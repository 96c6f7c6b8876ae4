"""What is installed on this device, found without importing it.

`importlib.metadata` would say it too, and keep 3 MB in every process that asks: folders of
distributions have names that PEP 376 fixes, and hold their entry points as text.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

RUNTIME_GROUP = "shoal.runtimes"
LIBRARY_VARIABLE = "SHOAL_TFLITE_LIBRARY"
LIBRARY_NAME = "libtensorflowlite_c.so"
LIBRARY_PACKAGE = "pymicro_wakeword"
LIBRARY_FOLDERS = (
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/arm-linux-gnueabihf",
)


def installed_version(distribution: str) -> str:
    """Version of an installed distribution, "" without it."""
    pattern = f"{distribution.replace('-', '_')}-*.dist-info"
    for folder in _folders(pattern):
        return folder.name.removesuffix(".dist-info").rpartition("-")[2]
    return ""


def runtime_entry_points() -> list[tuple[str, str, str]]:
    """(name, module:attribute, version of its distribution) of third parties' adapters."""
    found = []
    for path in _folders("*.dist-info/entry_points.txt"):
        text = path.read_text(encoding="utf-8", errors="replace")
        version = path.parent.name.removesuffix(".dist-info").rpartition("-")[2]
        in_group = False
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                in_group = line == f"[{RUNTIME_GROUP}]"
            elif in_group and "=" in line and not line.startswith("#"):
                name, _, target = line.partition("=")
                found.append((name.strip(), target.strip(), version))
    return found


def find_tflite_library() -> Path | None:
    """The TensorFlow Lite C library that the environment names, else an installed one."""
    if named := os.environ.get(LIBRARY_VARIABLE):
        path = Path(named)
        return path if path.is_file() else None
    spec = importlib.util.find_spec(LIBRARY_PACKAGE)
    folders = [Path(one) / "lib" for one in (spec and spec.submodule_search_locations) or ()]
    folders += map(Path, LIBRARY_FOLDERS)
    return next((one / LIBRARY_NAME for one in folders if (one / LIBRARY_NAME).is_file()), None)


def _folders(pattern: str) -> Iterator[Path]:
    for entry in sys.path:
        yield from Path(entry or ".").glob(pattern)
