"""Reads a flatbuffer that nobody has checked: every offset against the bounds, all work limited.

Generated classes trust the file; a wrong offset gives them a wrong number or an odd exception.
Here a table is checked as a whole when it is opened (its field list, its size, its alignment), a
vector before it is touched, and each costs something of a budget, so that a small file that
points at the same vector a million times is refused too. Everything wrong is a `BrokenFileError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from shoal.errors import InvalidInputError

I8, U8 = struct.Struct("<b"), struct.Struct("<B")
U16 = struct.Struct("<H")
I32, U32 = struct.Struct("<i"), struct.Struct("<I")
U64 = struct.Struct("<Q")
MAX_ITEMS = 2_000_000
"""Tables and numbers of vectors that one file may make us read."""
MAX_TEXT_BYTES = 65536


class BrokenFileError(InvalidInputError):
    """A file that is not what its kind must be."""

    code = "bad-model"


class Source:
    """The bytes of a file, and what may still be read of them."""

    def __init__(self, data: bytes | bytearray | memoryview, what: str) -> None:
        self.data = memoryview(data)
        self.size = len(self.data)
        self._what = what
        self._left = MAX_ITEMS

    def root(self, identifier: bytes) -> Table:
        """The table that the file begins with."""
        if self.size < 16 or bytes(self.data[4:8]) != identifier:
            raise self.broken(
                f"expected {identifier.decode()} at byte 4, got {bytes(self.data[4:8])!r} "
                f"in {self.size} bytes"
            )
        return Table(self, self.number(U32, 0))

    def number(self, kind: struct.Struct, at: int) -> int:
        """The number at an offset."""
        if at < 0 or at + kind.size > self.size:
            raise self.broken(f"offset {at} lies outside its {self.size} bytes")
        value: int = kind.unpack_from(self.data, at)[0]
        return value

    def vector(self, at: int, item_bytes: int) -> tuple[int, int]:
        """Where the items of the vector at `at` begin, and how many there are."""
        start = at + self.number(U32, at)
        count = self.number(U32, start)
        if start % 4 or start + 4 + count * item_bytes > self.size:
            raise self.broken(f"a vector of {count} items at {start} lies outside its bytes")
        return start + 4, count

    def spend(self, items: int) -> None:
        """Pay for reading."""
        self._left -= items
        if self._left < 0:
            raise self.broken(f"more than {MAX_ITEMS} tables and numbers to read")

    def broken(self, sentence: str) -> BrokenFileError:
        """The error to raise."""
        return BrokenFileError(f"{self._what}: {sentence}")


class Table:
    """A table whose own bytes are inside the file; fields by number, absent ones by default."""

    __slots__ = ("_at", "_slots", "_source")

    def __init__(self, source: Source, at: int) -> None:
        source.spend(1)
        fields = at - source.number(I32, at)
        length, size = source.number(U16, fields), source.number(U16, fields + 2)
        if at % 4 or fields % 2 or length < 4 or length % 2 or fields + length > source.size:
            raise source.broken(f"the field list of the table at {at} is none")
        self._slots: tuple[int, ...] = struct.unpack_from(
            f"<{length // 2 - 2}H", source.data, fields + 4
        )
        if at + size > source.size or max(self._slots, default=0) >= max(size, 4):
            raise source.broken(f"the table at {at} reaches beyond its {size} bytes")
        self._at = at
        self._source = source

    def scalar(self, field: int, kind: struct.Struct, default: int = 0) -> int:
        """A number."""
        place = self._place(field)
        return self._source.number(kind, place) if place else default

    def table(self, field: int) -> Table | None:
        """A table, if there is one."""
        place = self._place(field)
        return Table(self._source, place + self._source.number(U32, place)) if place else None

    def tables(self, field: int) -> Iterator[Table]:
        """The tables of a vector."""
        place = self._place(field)
        if place:
            start, count = self._source.vector(place, 4)
            for item in range(start, start + 4 * count, 4):
                yield Table(self._source, item + self._source.number(U32, item))

    def numbers(self, field: int, code: str) -> tuple[int, ...]:
        """The numbers of a vector: `i` 32 bits, `q` 64 bits."""
        return self._unpack(field, code)

    def floats(self, field: int) -> tuple[float, ...]:
        """The floats of a vector."""
        return self._unpack(field, "f")

    def span(self, field: int) -> memoryview:
        """The bytes of a vector, where they lie."""
        place = self._place(field)
        if not place:
            return self._source.data[:0]
        start, count = self._source.vector(place, 1)
        return self._source.data[start : start + count]

    def text(self, field: int) -> str:
        """A string; what is not UTF-8 is replaced, since it is only shown."""
        return bytes(self.span(field)[:MAX_TEXT_BYTES]).decode("utf-8", "replace")

    def _unpack(self, field: int, code: str) -> tuple:  # type: ignore[type-arg] # by `code`
        place = self._place(field)
        if not place:
            return ()
        start, count = self._source.vector(place, struct.calcsize(f"<{code}"))
        self._source.spend(count)
        return struct.unpack_from(f"<{count}{code}", self._source.data, start)

    def _place(self, field: int) -> int:
        """Offset of a field; 0: absent."""
        slot = self._slots[field] if field < len(self._slots) else 0
        return self._at + slot if slot else 0
