"""Server-sent events: that something changed, never what; the API has the rest.

One task watches the database for all subscribers. A subscriber that does not read loses events,
not memory, and is told again at the next change.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from sqlalchemy import func, select

from controller.api.common import OfServices
from controller.database import ChangeFeed, reading
from controller.errors import UnavailableError
from controller.schema import events, rollouts
from controller.services import Services

router = APIRouter(tags=["stream"])

QUEUED = 100
SILENCE_SECONDS = 15.0
LOOK_SECONDS = 1.0
MAX_SUBSCRIBERS = 200


class Announcer:
    """Watches for changes and tells every subscriber."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._queues: set[asyncio.Queue[str]] = set()
        self._counters: Any = None
        self._rollouts: dict[str, int] = {}
        self._last_event = -1

    async def run(self) -> None:
        """Work until cancelled."""
        feed = ChangeFeed(self._services.engine)
        overview = self._services.overview
        try:
            while True:
                # Devices also fall silent without any change, so look again when that is cheap.
                changed = await feed.wait(max(overview.due_seconds(), LOOK_SECONDS))
                if self._queues:
                    for text in await asyncio.to_thread(self._news, changed):
                        self._tell(text)
        finally:
            feed.close()

    def _news(self, changed: bool) -> list[str]:
        counters = self._services.overview.read().document()
        found = [] if counters == self._counters else [_event("fleet", counters)]
        self._counters = counters
        return found + self._changes() if changed else found

    def _changes(self) -> list[str]:
        with reading(self._services.engine) as connection:
            query = select(rollouts.c.rollout, rollouts.c.state, rollouts.c.updated_ms)
            states = connection.execute(query).all()
            last_event = connection.scalar(select(func.max(events.c.id))) or 0
        found = [
            _event("rollout", {"rollout": row.rollout, "state": row.state})
            for row in states
            if self._rollouts.get(row.rollout) != row.updated_ms
        ]
        if last_event != self._last_event:
            found.append(_event("events", {"last_id": last_event}))
        found.append(_event("telemetry", {"ms": self._services.now_ms()}))
        self._last_event = last_event
        self._rollouts = {row.rollout: row.updated_ms for row in states}
        return found

    def _tell(self, text: str) -> None:
        for queue in self._queues:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(text)

    async def subscribe(self) -> AsyncIterator[str]:
        """Yield events until the service ends; a comment when there is nothing to say."""
        queue: asyncio.Queue[str] = asyncio.Queue(QUEUED)
        self._queues.add(queue)
        stopping = asyncio.create_task(self._services.stopping.wait())
        try:
            yield "retry: 2000\n: connected\n\n"
            while not stopping.done():
                news = asyncio.create_task(queue.get())
                await asyncio.wait(
                    {news, stopping},
                    timeout=SILENCE_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if news.done():
                    yield news.result()
                else:
                    news.cancel()
                    yield ": still here\n\n"
        finally:
            stopping.cancel()
            self._queues.discard(queue)

    @property
    def full(self) -> bool:
        """Whether no more subscribers are taken."""
        return len(self._queues) >= MAX_SUBSCRIBERS


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


@router.get("/stream")
async def stream(services: OfServices) -> StreamingResponse:
    """Changes as they happen: `fleet`, `rollout`, `events`, `telemetry`."""
    announcer = services.announcer
    if announcer is None or announcer.full:
        raise UnavailableError(f"stream: {MAX_SUBSCRIBERS} subscribers are connected already")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(announcer.subscribe(), media_type="text/event-stream", headers=headers)
