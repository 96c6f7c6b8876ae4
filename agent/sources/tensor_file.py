"""Raw tensors: a two-dimensional float32 `.npy` file, memory-mapped, without numpy.

For images, feature vectors and benchmarks: rows go to the worker as bytes, untouched.
"""

from __future__ import annotations

import ast
import asyncio
import mmap
import struct
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from agent.options import Key
from agent.ports import Samples
from agent.sources.kinds import SourceKind
from shoal.errors import InvalidInputError

BATCH_ROWS = 256
BATCH_BYTES = 256 * 1024
"""A batch of images stays small: what waits for the model is copied and held whole."""


class TensorFileSource:
    """`agent.ports.Source` over the rows of a file; its width must be the contract's."""

    def __init__(self, path: str, rate_hz: float, loop: bool) -> None:
        self._path = Path(path)
        self._rate_hz = rate_hz
        self._loop = loop
        self.live = rate_hz > 0

    def select(self, features: list[str]) -> None:
        """Columns have no names: the contract's order is taken."""

    def take_dropped(self) -> dict[str, int]:
        """Nothing is unparsable here."""
        return {}

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Yield up to 256 rows at a time, or one by one at a rate."""
        with self._path.open("rb") as file:
            offset, rows, width = read_header(self._path, file.read(4096))
            fitting = max(1, min(BATCH_ROWS, BATCH_BYTES // max(width * 4, 1)))
            size = 1 if self._rate_hz else fitting
            started, sent = time.monotonic(), 0
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                while True:
                    for start in range(0, rows, size):
                        count = min(size, rows - start)
                        if self._rate_hz:
                            due = started + sent / self._rate_hz
                            await asyncio.sleep(max(due - time.monotonic(), 0))
                        at = offset + start * width * 4
                        now_ms = time.time_ns() // 1_000_000
                        sent += count
                        yield Samples([now_ms] * count, data[at : at + count * width * 4], width)
                    if not self._loop:
                        return


def read_header(path: Path, head: bytes) -> tuple[int, int, int]:
    """Return (offset of the data, rows, width) of a `.npy` file, or `InvalidInputError`.

    Source: NumPy Enhancement Proposal 1, format versions 1 and 2.
    """
    try:
        if head[:6] != b"\x93NUMPY":
            raise ValueError("no .npy file")
        size, at = (
            (struct.unpack("<H", head[8:10])[0], 10)
            if head[6] == 1
            else (
                struct.unpack("<I", head[8:12])[0],
                12,
            )
        )
        fields = ast.literal_eval(head[at : at + size].decode("latin1"))
        shape = fields["shape"]
        if fields["descr"] != "<f4" or fields["fortran_order"] or len(shape) != 2:
            raise ValueError(f"expected little-endian float32 (n, m), got {fields}")
        if path.stat().st_size < at + size + shape[0] * shape[1] * 4:
            raise ValueError("truncated")
    except (ValueError, SyntaxError, KeyError, IndexError, struct.error, OSError) as error:
        raise InvalidInputError(f"source.path {path}: {error}") from error
    return at + size, int(shape[0]), int(shape[1])


TENSOR_FILE = SourceKind(
    {
        "path": Key("text"),
        "rate_hz": Key("number", 0.0, 0, 1e6),
        "loop": Key("bool", False),
    },
    lambda options, context: TensorFileSource(options["path"], options["rate_hz"], options["loop"]),
)
