"""Bodies of requests: JSON as the wire has it, and of a bounded size.

Python's own reader takes NaN, numbers beyond floating point and halves of characters, none of
which can be stored or answered again. FastAPI reads a body before it asks who sends it, so the
limit stands here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

MAX_BODY_BYTES = 1024 * 1024


class _JsonRequest(Request):
    """A request whose body is read with our limits."""

    async def body(self) -> bytes:
        """The whole body; 413 if it is too large."""
        if not hasattr(self, "_body"):
            found = bytearray()
            async for chunk in self.stream():
                found += chunk
                if len(found) > MAX_BODY_BYTES:
                    raise HTTPException(413, f"a body of more than {MAX_BODY_BYTES} bytes")
            self._body = bytes(found)
        return self._body

    async def json(self) -> Any:
        """The body, decoded."""
        try:
            return msgspec.json.decode(await self.body())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise json.JSONDecodeError(str(error), "", 0) from error


class JsonRoute(APIRoute):
    """A route that takes JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Hand the request on as ours."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json
