"""Giving back memory that only starting up has needed.

Importing a runtime touches megabytes of library code once. Clean pages of a file are dropped from
this process by `madvise`: whatever is needed again is read from the page cache as before, and what
is not no longer weighs on the device. Mappings that hold changed pages (relocated data) stay.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

_MADV_DONTNEED = 4
_libc = ctypes.CDLL(None, use_errno=True)


def trim_memory() -> None:
    """Return free heap to the kernel, and drop clean file pages. Never fails."""
    _trim_heap()
    try:
        text = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return  # a kernel without it: nothing is dropped
    for start, end in clean_file_mappings(text):
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def clean_file_mappings(smaps: str) -> Iterator[tuple[int, int]]:
    """Address ranges of read-only mappings of files in which no page was ever changed.

    >>> list(clean_file_mappings('''1000-3000 r-xp 00000000 08:01 7 /lib/libm.so
    ... Anonymous:             0 kB
    ... 3000-4000 r--p 00002000 08:01 7 /lib/libm.so
    ... Anonymous:             4 kB
    ... '''))
    [(4096, 12288)]
    """
    mapping: tuple[int, int] | None = None
    for line in smaps.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            is_file = len(words) >= 6 and words[5].startswith("/") and "w" not in words[1]
            start, _, end = words[0].partition("-")
            mapping = (int(start, 16), int(end, 16)) if is_file else None
        elif words[0] == "Anonymous:" and words[1] == "0" and mapping is not None:
            yield mapping


def _trim_heap() -> None:
    try:
        _libc.malloc_trim(0)
    except AttributeError:
        return  # musl has none
