"""Rows that others POST to the agent's local HTTP server: `/rows/<model>`.

The body is a JSON object, a list of them, or JSON lines. 202 says that the rows are taken, with how
many could not be read; 429 with `Retry-After` that too many wait, and none were taken.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator

from agent.local_http import HttpError, LocalHttp, Request, Response
from agent.options import Key
from agent.ports import Samples
from agent.sources.kinds import SourceContext, SourceKind
from agent.sources.rows import ROW_KEYS, Packer, Row, parse_json, parse_row
from agent.sources.tally import Tally

BATCH_ROWS = 64


class HttpSource:
    """`agent.ports.Source` of the rows that were posted."""

    live = False

    def __init__(
        self, model: str, packer: Packer, tally: Tally, max_rows: int, server: LocalHttp | None
    ) -> None:
        self._model = model
        self._packer = packer
        self._tally = tally
        self._max_rows = max_rows
        self._rows: deque[Row] = deque()
        self._arrived = asyncio.Event()
        self._reading = False
        self.faults = packer.faults
        if server is not None:
            server.add(self.handle)

    def select(self, features: list[str]) -> None:
        """Give these features from the next batch on."""
        self._packer.select(features)

    def take_dropped(self) -> dict[str, int]:
        """Rows it could not use since the last call."""
        return self._tally.take()

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Yield what is posted, for ever."""
        self._reading = True
        try:
            while True:
                if not self._rows:
                    self._arrived.clear()
                    await self._arrived.wait()
                rows = [self._rows.popleft() for _ in range(min(BATCH_ROWS, len(self._rows)))]
                samples = self._packer.pack(rows)
                if samples.times_ms:
                    yield samples
        finally:
            self._reading = False

    async def handle(self, request: Request) -> Response | None:
        """Take rows, all or none."""
        if request.parts != ("rows", self._model):
            return None
        if request.method != "POST":
            raise HttpError(405, f"/rows/{self._model}: expected POST, got {request.method}")
        if not self._reading:
            raise HttpError(503, f"/rows/{self._model}: no release answers yet")
        rows = read_body(request.body)
        if len(rows) > self._max_rows:
            raise HttpError(413, f"body: {len(rows)} rows, at most {self._max_rows}")
        if len(self._rows) + len(rows) > self._max_rows:
            return Response(
                429,
                json.dumps({"error": f"{len(self._rows)} rows wait already"}).encode(),
                {"content-type": "application/json", "retry-after": "1"},
            )
        self._rows.extend(rows)
        self._arrived.set()
        unreadable = sum(row is None for row in rows)
        return Response.of_json({"taken": len(rows), "unreadable": unreadable}, 202)


def read_body(body: bytes) -> list[Row]:
    """Rows of one JSON document, or of JSON lines; None for each that is none."""
    document = parse_json(body)
    if isinstance(document, dict):
        return [document]
    if isinstance(document, list):
        return [one if isinstance(one, dict) else None for one in document]
    return [parse_row(line) for line in body.splitlines() if line.strip()]


def _make(options: dict[str, object], context: SourceContext) -> HttpSource:
    packer = Packer.of(options, context.tally)
    max_rows = options["max_rows"]
    assert isinstance(max_rows, int)
    return HttpSource(context.model, packer, context.tally, max_rows, context.http)


HTTP = SourceKind({"max_rows": Key("integer", 4096, 1, 1_000_000), **ROW_KEYS}, _make)
