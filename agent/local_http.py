"""A small HTTP/1.1 server on this machine: loopback or a Unix socket, limits on everything.

It speaks for the agent to what runs beside it: rows in, inference, health. h11 keeps the protocol,
asyncio the sockets. There is no TLS and no password here, so it listens on nothing unless told to.
A request with an `Origin` comes from a web page and is refused: a page may send, though not read,
across origins.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import h11

from shoal.errors import InvalidInputError

log = logging.getLogger("agent.http")

CHUNK_BYTES = 1 << 16
MAX_HEADER_BYTES = 16 * 1024
LINGER_BYTES, LINGER_SECONDS = 32 * 1024 * 1024, 5.0


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a peer may do."""

    max_body_bytes: int = 8 * 1024 * 1024
    max_connections: int = 32
    idle_seconds: float = 60.0
    """For a whole request to come, and between two."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole. Header names are lower case; `parts` are the path's, decoded."""

    method: str
    parts: tuple[str, ...]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, document: object, status: int = 200, **headers: str) -> Response:
        """An answer in JSON."""
        body = json.dumps(document).encode()
        return cls(status, body, {"content-type": "application/json", **headers})


class HttpError(Exception):
    """Ends a request with a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


Handler = Callable[[Request], Awaitable[Response | None]]
"""Answers what is its own; None leaves the request to the next handler."""


class LocalHttp:
    """The server; handlers are asked in turn."""

    def __init__(self, limits: HttpLimits | None = None) -> None:
        self._limits = limits or HttpLimits()
        self._handlers: list[Handler] = []
        self._connections: set[asyncio.Task[None] | None] = set()
        self.port = 0
        """The TCP port, once it listens."""

    def add(self, handler: Handler) -> None:
        """Ask this handler too."""
        self._handlers.append(handler)

    async def run(self, address: tuple[str, int] | None, socket_path: str) -> None:
        """Serve until cancelled; raise `InvalidInputError` where it cannot listen."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                if address is not None:
                    server = await asyncio.start_server(self._accept, *address, limit=CHUNK_BYTES)
                    self.port = server.sockets[0].getsockname()[1]
                    stack.push_async_callback(_close, server)
                if socket_path:
                    unix = await asyncio.start_unix_server(
                        self._accept, socket_path, limit=CHUNK_BYTES
                    )
                    os.chmod(socket_path, 0o660)  # noqa: PTH101 - at once, nothing to wait for
                    stack.push_async_callback(_close, unix)
            except OSError as error:
                raise InvalidInputError(f"http.listen {address or socket_path}: {error}") from error
            stack.callback(self._hang_up)
            await asyncio.Event().wait()

    def _hang_up(self) -> None:
        for task in self._connections:
            if task is not None:
                task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            # asyncio's own callback complains of a task that ends cancelled
            with contextlib.suppress(
                OSError, TimeoutError, h11.LocalProtocolError, asyncio.CancelledError
            ):
                await self._talk(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, one after the other."""
        peer = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        full = len(self._connections) > self._limits.max_connections
        while True:
            close = full
            try:
                async with asyncio.timeout(self._limits.idle_seconds):
                    request = await self._receive(peer, reader, writer)
                if request is None:
                    return
                if full:
                    raise HttpError(503, f"more than {self._limits.max_connections} connections")
                response = await self._answer(request)
            except HttpError as error:
                response = error_response(error.status, error.sentence)
                close = True
            except h11.RemoteProtocolError as error:
                response = error_response(error.error_status_hint, str(error))
                close = True
            await self._send(peer, writer, response, close=close)
            if close or peer.our_state is not h11.DONE or peer.their_state is not h11.DONE:
                await _let_go(reader, writer)
                return
            peer.start_next_cycle()

    async def _receive(
        self, peer: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Request | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = peer.next_event()
            if event is h11.NEED_DATA:
                if peer.they_are_waiting_for_100_continue:
                    writer.write(
                        peer.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                    )
                peer.receive_data(await reader.read(CHUNK_BYTES))
            elif isinstance(event, h11.Request):
                head = event
                self._check_length(event)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._limits.max_body_bytes:
                    raise HttpError(413, self._too_large())
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return _whole(head, bytes(body))
            else:
                return None  # closed, or paused on an upgrade that nobody offers

    def _check_length(self, head: h11.Request) -> None:
        for name, value in head.headers:
            if name == b"content-length" and int(value) > self._limits.max_body_bytes:
                raise HttpError(413, self._too_large())
            if name == b"origin":
                raise HttpError(403, "requests from web pages are refused")

    def _too_large(self) -> str:
        return f"body: at most {self._limits.max_body_bytes} bytes"

    async def _answer(self, request: Request) -> Response:
        try:
            for handler in self._handlers:
                if (response := await handler(request)) is not None:
                    return response
        except HttpError as error:
            return error_response(error.status, error.sentence)
        except Exception:
            log.exception("request failed path=%r", request.parts)
            return error_response(500, "the agent failed over this request")
        return error_response(404, f"no such path: /{'/'.join(request.parts)}")

    async def _send(
        self,
        peer: h11.Connection,
        writer: asyncio.StreamWriter,
        response: Response,
        *,
        close: bool,
    ) -> None:
        headers = [*response.headers.items(), ("content-length", str(len(response.body)))]
        if close:
            headers.append(("connection", "close"))
        head = peer.send(h11.Response(status_code=response.status, headers=headers)) or b""
        data = peer.send(h11.Data(data=response.body)) or b""
        end = peer.send(h11.EndOfMessage()) or b""
        writer.write(head + data + end)
        async with asyncio.timeout(self._limits.idle_seconds):
            await writer.drain()


def error_response(status: int, sentence: str) -> Response:
    """An error as the Open Inference Protocol wants it; the other paths say it alike."""
    return Response.of_json({"error": sentence}, status)


def _whole(head: h11.Request, body: bytes) -> Request:
    path = urlsplit(head.target.decode("ascii")).path
    parts = tuple(unquote(part) for part in path.split("/") if part)
    headers = {name.decode(): value.decode("latin1") for name, value in head.headers}
    return Request(head.method.decode(), parts, headers, body)


async def _let_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that we are done, and hear the peer out for a while: what it still sends would make the
    kernel reset the connection, and take our answer with it."""
    writer.write_eof()
    left = LINGER_BYTES
    async with asyncio.timeout(LINGER_SECONDS):
        while left > 0 and (chunk := await reader.read(CHUNK_BYTES)):
            left -= len(chunk)


async def _close(server: asyncio.Server) -> None:
    server.close()
