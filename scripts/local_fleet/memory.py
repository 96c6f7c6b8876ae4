"""Memory of a process and all its descendants, as PSS: shared pages count once among sharers."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def tree_pss_bytes(pid: int) -> int:
    """PSS of `pid` and every descendant; one that ends meanwhile counts nothing."""
    return sum(pss_bytes(one) for one in tree(pid))


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    found = [pid]
    for one in found:
        found.extend(children(one))
    return found


def children(pid: int) -> list[int]:
    """Direct children of all threads of `pid`."""
    result = []
    for path in PROC.glob(f"{pid}/task/*/children"):
        try:
            result += [int(word) for word in path.read_text(encoding="ascii").split()]
        except OSError:
            continue
    return result


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
