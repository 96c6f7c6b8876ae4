"""Take out of an environment what an agent never loads: `python -m agent.slim [FOLDER]`.

Test suites of libraries, and parts of LiteRT for graphics chips and for compiling models, are a
third of an installed agent. What is gone is only unused: a runtime that looks for its accelerator
and does not find it goes on without. Installing a library again brings all of it back.

Only files that an installed distribution lists as its own are touched.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

UNUSED = {
    "numpy": ("numpy/*/tests/*", "numpy/tests/*", "numpy/f2py/*"),
    "ai_edge_litert": (
        "ai_edge_litert/libLiteRtWebGpuAccelerator*",
        "ai_edge_litert/tools/*",
        "ai_edge_litert/vendors/*",
        "ai_edge_litert/aot/*",
    ),
    "protobuf": ("google/protobuf/compiler/*",),
}
"""Globs of unused files, by distribution."""


def unused_files(folder: Path) -> Iterator[Path]:
    """The files below site-packages `folder` that an agent never loads."""
    for name, globs in UNUSED.items():
        for record in folder.glob(f"{name}-*.dist-info/RECORD"):
            for line in record.read_text(encoding="utf-8").splitlines():
                path = line.rsplit(",", 2)[0].strip('"')
                found = folder / path
                inside = ".." not in Path(path).parts and not path.startswith("/")
                if inside and any(fnmatch(path, one) for one in globs) and found.is_file():
                    yield found


def slim(folder: Path) -> int:
    """Delete them, with their bytecode; return how many bytes that freed."""
    freed = 0
    for path in list(unused_files(folder)):
        freed += path.stat().st_size
        path.unlink()
    for cache in sorted(folder.rglob("__pycache__"), reverse=True):
        for compiled in cache.glob("*.pyc"):
            source = cache.parent / f"{compiled.name.split('.', 1)[0]}.py"
            if not source.exists():
                freed += compiled.stat().st_size
                compiled.unlink()
    return freed


def main() -> int:
    """Slim the environment that runs this, or the one named."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sysconfig.get_paths()["purelib"])
    if not folder.is_dir():
        print(f"slim: {folder}: no such folder", file=sys.stderr)
        return 1
    print(f"slim: {slim(folder) / 1e6:.0f} MB of {folder} are never loaded, and gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
