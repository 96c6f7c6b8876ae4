"""Whether the kernel took a process of ours for memory: its SIGKILL looks like anybody's.

The unit's control group counts such kills in `memory.events`, which is readable although it is not
ours to change. Without control groups of version 2 nothing is counted, and nothing is claimed.
"""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


class OomCounter:
    """Kills for memory in our control group since the last call."""

    def __init__(self, cgroups: Path = CGROUPS, own: Path = OWN) -> None:
        self._events = _events_file(cgroups, own)
        self._before = self._count()

    def take(self) -> int:
        """How many there were since the last call."""
        before, self._before = self._before, self._count()
        return max(self._before - before, 0)

    def _count(self) -> int:
        if self._events is None:
            return 0
        try:
            return parse_kills(self._events.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0


def parse_kills(text: str) -> int:
    """The count of `memory.events`; groups below ours are in it.

    >>> parse_kills("low 0\\nmax 7\\noom 2\\noom_kill 2\\noom_group_kill 0\\n")
    2
    """
    lines = (line.split() for line in text.splitlines())
    return next((int(line[1]) for line in lines if len(line) == 2 and line[0] == "oom_kill"), 0)


def explain_kill(code: str, words: str, status: int, kills: int) -> tuple[str, str]:
    """What a worker's end was: a SIGKILL while the kernel counted one is memory's.

    >>> explain_kill("worker-crashed", "died of signal 9", -9, 1)
    ('worker-memory', "out of memory, died of signal 9 at the unit's memory limit")
    >>> explain_kill("worker-crashed", "died of signal 9", -9, 0)
    ('worker-crashed', 'died of signal 9')
    """
    if status == -9 and kills:
        return "worker-memory", f"out of memory, {words} at the unit's memory limit"
    return code, words


def _events_file(cgroups: Path, own: Path) -> Path | None:
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    inside = next((line[3:] for line in lines if line.startswith("0::")), None)
    path = None if inside is None else cgroups / inside.lstrip("/") / "memory.events"
    return path if path is not None and path.is_file() else None
