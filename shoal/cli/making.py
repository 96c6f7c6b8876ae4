"""What the commands that make a package share: checks before the work, progress, the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli.keys import load_key
from shoal.errors import InvalidInputError
from shoal.ids import VERSION_PATTERN, parse_model

if TYPE_CHECKING:
    from shoal.cli.table import OnProgress
    from shoal.package import Package
    from shoal.signing import FileSigner

SUFFIX = ".shoal"
NEEDED = ("numpy", "cryptography", "flatbuffers", "tflite")

Key = Annotated[Path, typer.Option("--key", help="Release key, made by `shoal keys create`.")]
Out = Annotated[Path, typer.Option("--out", help="The package to write, *.shoal.")]


def prepare(key: Path, out: Path) -> FileSigner:
    """Refuse at once what would fail after minutes of work; return the signer."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InvalidInputError(
            f"making packages: expected {', '.join(missing)} to be installed "
            "(pip install 'shoal[author]')"
        )
    if out.suffix != SUFFIX or out.is_dir():
        raise InvalidInputError(f"package {out}: expected the name of a file, *{SUFFIX}")
    if not out.parent.is_dir():
        raise InvalidInputError(f"package {out}: expected folder {out.parent} to exist")
    return load_key(key)


def check_release(name: str, version: str) -> None:
    """Refuse names and versions that no manifest takes."""
    parse_model(name)
    if re.fullmatch(VERSION_PATTERN, version) is None:
        raise InvalidInputError(
            f"version {version[:80]!r}: expected letters, digits, '.', '+' and '-', at most 32 "
            "characters, starting with a letter or digit"
        )


@contextmanager
def progress(words: str) -> Iterator[OnProgress]:
    """A bar on standard error while the work goes on, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def write(package: Package, out: Path) -> dict[str, Any]:
    """Write the package; say where, how large, and under which name it is signed."""
    from shoal.package import write_package

    try:
        write_package(package, out)
    except OSError as error:
        raise InvalidInputError(f"package {out}: {error.strerror}") from error
    return {"package": str(out), "bytes": out.stat().st_size} | identity(package)


def identity(package: Package) -> dict[str, Any]:
    """What names a package, and the ids of the keys that are said to have signed it."""
    return {
        "manifest_sha256": package.manifest_sha256,
        "signed_by": [one.keyid for one in package.envelope.signatures],
    }
