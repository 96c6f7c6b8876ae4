"""What enrolment left in the state folder: the root to believe, and where the repository is.

A missing or broken file refuses everything; nothing is ever accepted unverified for lack of a key.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.floors import TRUST_FOLDER, Floors, read_floors, write_floors
from agent.state_files import write_private
from shoal.errors import UntrustedError

TRUST_NAME = "trust.json"
ROOT_NAME = "root.json"
"""In the trust folder: the root metadata that enrolment brought, read-only."""
DEVICE_KEY_NAME = "device.key"


class Trust(Struct, frozen=True):
    """Where the repository is; whom to believe in it, the pinned root says."""

    repository_url: str


def load_trust(state_dir: Path) -> Trust:
    """Read where the repository is, or raise `UntrustedError` so that nothing is accepted."""
    path = state_dir / TRUST_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Trust)
    except (OSError, msgspec.DecodeError) as error:
        raise UntrustedError(f"{path}: {error}", code="no-trust") from error


def load_root(state_dir: Path) -> bytes:
    """The pinned root, or raise: without one nothing is believed, the cache least of all."""
    path = state_dir / TRUST_FOLDER / ROOT_NAME
    try:
        root = path.read_bytes()
    except OSError as error:
        raise UntrustedError(
            f"{path}: {error.strerror}; nothing is trusted without the pinned root, enrol this "
            "device again",
            code="no-root",
        ) from error
    if not root:
        raise UntrustedError(f"{path}: is empty; enrol this device again", code="no-root")
    return root


def pin_root(state_dir: Path, root: bytes) -> None:
    """Trust this root from now on, and begin anew what was seen of another.

    The same root again (a second enrolment) keeps releases, sequence and time that were seen.
    """
    folder = state_dir / TRUST_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / ROOT_NAME
    floors = read_floors(state_dir) if path.exists() and path.read_bytes() == root else None
    if floors is None:
        shutil.rmtree(folder / "metadata", ignore_errors=True)
    write_private(path, root)
    path.chmod(0o400)
    write_floors(state_dir, floors or Floors())
