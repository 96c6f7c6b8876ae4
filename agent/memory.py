"""How much memory there is: of the host, and of the control group that systemd gave us."""

from __future__ import annotations

from pathlib import Path

import psutil

from shoal.errors import ShoalError

SPARE_SHARE = 0.15
SPARE_BYTES = 64 * 2**20
CGROUPS = Path("/sys/fs/cgroup")
MIB = 2**20


def has_room_to_spare() -> bool:
    """Whether a worker that does not answer may stay: 15 % and 64 MiB are left without it."""
    memory = psutil.virtual_memory()
    return bool(available_bytes() >= max(SPARE_SHARE * memory.total, SPARE_BYTES))


def available_bytes(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """What could be taken now without swapping, or without being killed for our unit's limit."""
    available: int = psutil.virtual_memory().available
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except OSError:
        return available
    inside = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = cgroups / inside.lstrip("/")
    while folder != cgroups and cgroups in folder.parents:
        available = min(available, _headroom(folder, available))
        folder = folder.parent
    return max(available, 0)


def check_memory(name: str, need: int, available: int, total: int) -> None:
    """Raise `memory` with the numbers when a model cannot fit; before anything loads it."""
    have, words = (total, "this device has") if need > total else (available, "available are")
    if need > have:
        raise ShoalError(
            f"{name}: loading it takes about {need / MIB:.1f} MiB, {words} {have / MIB:.1f} MiB",
            code="memory" if need > total else "memory-now",
        )


def _headroom(folder: Path, otherwise: int) -> int:
    """Limit less use of one control group; pages of files count as free."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        current = int((folder / "memory.current").read_text(encoding="ascii"))
        statistics = (folder / "memory.stat").read_text(encoding="ascii").split()
        files = int(statistics[statistics.index("inactive_file") + 1])
    except (OSError, ValueError, IndexError):
        return otherwise
    return otherwise if limit == "max" else int(limit) - current + files
