"""When a row was: the same reading of a time cell on the device and beside it.

>>> parse_time_ms("2020-03-09 10:14:33") == parse_time_ms("2020-03-09T11:14:33+01:00")
True
>>> parse_time_ms("1583748873000")
1583748873000
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def parse_time_ms(cell: Any, per_unit: float = 1.0) -> int:
    """Milliseconds since 1970 from a number of them (or of units), or from ISO 8601 text.

    Text without an offset is UTC, so that a file means the same wherever it is read. Raises
    `ValueError` or `TypeError` for anything else.
    """
    try:
        return max(int(float(cell) * per_unit), 0)
    except ValueError:
        moment = datetime.fromisoformat(cell)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(int(moment.timestamp() * 1000), 0)
