"""The map of a large fleet: one small picture a site, a few pixels a device, without scripts.

A picture is a PNG with a palette, so that 500 devices are some 200 bytes, inside the page.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from controller.fleet import STATUSES

NAMED_MOST = 60
"""Up to so many devices each get a tile with their name."""
LINKED_MOST = 500
"""Up to so many each get a tile of their own to follow; beyond, sites become pictures."""
SITES_MOST = 240
LARGE = 20_000

_PALETTE = {  # red, green, blue, opacity; read on light and dark ground alike
    "ok": (52, 168, 110, 60),
    "degraded": (217, 159, 0, 255),
    "failing": (214, 55, 69, 255),
    "offline": (132, 142, 156, 255),
    "updating": (53, 116, 226, 255),
    "unknown": (132, 142, 156, 90),
}
_INDEX = {name: number for number, name in enumerate(STATUSES, start=1)}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for an <img>."""

    source: str
    width: int
    height: int


def draw(statuses: Sequence[str], columns: int, cell: int) -> Picture:
    """Draw one cell a status, row by row; cells above 2 pixels keep a gap of one."""
    rows = math.ceil(len(statuses) / columns)
    width, height = columns * cell, rows * cell
    inner = cell - 1 if cell > 2 else cell
    lines = bytearray()
    for row in range(rows):
        own = statuses[row * columns : (row + 1) * columns]
        line = b"".join(bytes([_INDEX[one]]) * inner + bytes(cell - inner) for one in own)
        line = b"\0" + line.ljust(width, b"\0")
        lines += line * inner + bytes(width + 1) * (cell - inner)
    png = _png(width, height, bytes(lines))
    return Picture("data:image/png;base64," + base64.b64encode(png).decode(), width, height)


def columns_for(largest: int) -> int:
    """Cells a row, so that the largest site is about 1.7 times as wide as high."""
    return max(1, math.ceil(math.sqrt(largest * 1.7)))


def cell_for(total: int) -> int:
    """Pixels a device, so that the map stays on a screen or two."""
    return 2 if total > LARGE else 4


def _png(width: int, height: int, lines: bytes) -> bytes:
    colours = [(0, 0, 0, 0), *(_PALETTE[name] for name in STATUSES)]
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(part for colour in colours for part in colour[:3])),
            _chunk(b"tRNS", bytes(colour[3] for colour in colours)),
            _chunk(b"IDAT", zlib.compress(lines, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
