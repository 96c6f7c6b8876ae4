"""The newest log lines, in memory: what an operator asks for first, without a login."""

from __future__ import annotations

import logging
from collections import deque

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
MAX_LINES = 400
MAX_LINE = 400
"""Characters; together with `MAX_LINES` at most 160 kB of memory."""


class LogRing(logging.Handler):
    """A ring of formatted lines."""

    def __init__(self, most: int = MAX_LINES) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=most)
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; its traceback becomes further lines."""
        for line in self.format(record).splitlines():
            self._lines.append(line[:MAX_LINE])

    def lines(self, most: int = MAX_LINES) -> list[str]:
        """The newest lines, oldest of them first."""
        return list(self._lines)[-most:]
