"""How much room the agent takes on a device's disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.figure import Figure, Options, figure

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 900.0


def install_size(options: Options) -> Figure:
    """Site-packages of `shoal[agent]` as `pip install` leaves it. One run: it is exact."""
    return figure("install_size", "MB", [_sizes("agent")[0]])


def install_size_slim(options: Options) -> Figure:
    """The same as `systemd/install.sh` leaves it, without what an agent never loads."""
    return figure("install_size_slim", "MB", [_sizes("agent")[1]])


def install_size_small(options: Options) -> Figure:
    """The same for `--extra agent-small`: the C library instead of LiteRT."""
    return figure("install_size_small", "MB", [_sizes("agent-small")[1]])


@cache
def _sizes(extra: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="shoal-install-") as folder:
        environment = Path(folder) / "venv"
        _run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
        python = environment / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet"]
        _run([*pip, "install", f"{ROOT}[{extra}]"])
        whole = _folder_bytes(environment / "lib") / 1e6
        _run([str(python), "-m", "agent.slim"])
        return whole, _folder_bytes(environment / "lib") / 1e6


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS, stdout=subprocess.DEVNULL)


def _folder_bytes(folder: Path) -> int:
    """Disk blocks, as `du` counts them; hard links and symbolic links do not occur."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir())
