"""Lines from standard input, TCP and Unix sockets: JSON objects or CSV.

A slow client is waited for, a broken one costs its own connection only, a line above the limit is
skipped and counted. A connection that we made is made again, with jittered back-off.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import random
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.address import split_address
from agent.options import Key
from agent.ports import Samples
from agent.sources.kinds import SourceContext, SourceKind
from agent.sources.rows import ROW_KEYS, Packer, Row, parse_row
from agent.sources.tally import TOO_LONG, Tally
from shoal.errors import InvalidInputError

_Value = TypeVar("_Value")

BATCH_ROWS = 64
CHUNK_BYTES = 1 << 16
QUEUE_CHUNKS = 4
"""Chunks read and not packed yet; beyond, a connection is not read from."""
BACKOFF_SECONDS = (0.2, 30.0)
CONNECT_SECONDS = 10.0
MAX_LINE_BYTES = 1 << 20


class LineSplitter:
    """Cuts a stream into lines, skipping those above a limit. Pure."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._skipping = False
        self.too_long = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Whole lines so far, without their ends and without empty ones."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if self._skipping and lines:
            lines = lines[1:]
            self._skipping = False
        if len(self._rest) > self._max_bytes:
            self.too_long += not self._skipping
            self._skipping = True
        if self._skipping:
            self._rest = b""
        return self._short(lines)

    def end(self) -> list[bytes]:
        """What stands after the last line end."""
        rest, self._rest = self._rest, b""
        return self._short([rest])

    def _short(self, lines: list[bytes]) -> list[bytes]:
        fitting = [line for line in lines if len(line) <= self._max_bytes]
        self.too_long += len(lines) - len(fitting)
        return [stripped for line in fitting if (stripped := line.strip())]


class CsvLines:
    """Reads CSV lines; without given fields the first line of a connection names them."""

    def __init__(self, fields: list[str], delimiter: str) -> None:
        self._fields = fields
        self._delimiter = delimiter

    def __call__(self, lines: list[bytes]) -> list[Row]:
        """Rows of the lines; None for one of another width."""
        rows: list[Row] = []
        for line in lines:
            try:
                (cells,) = csv.reader([line.decode()], delimiter=self._delimiter)
            except (UnicodeDecodeError, csv.Error, ValueError):
                rows.append(None)
                continue
            if not self._fields:
                self._fields = [cell.strip() for cell in cells]
                continue
            fits = len(cells) == len(self._fields)
            rows.append(dict(zip(self._fields, cells, strict=True)) if fits else None)
        return rows


def json_lines(lines: list[bytes]) -> list[Row]:
    """Rows of JSON lines."""
    return [parse_row(line) for line in lines]


Decoder = Callable[[list[bytes]], list[Row]]
Endpoint = Callable[["LinesSource"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class LineLimits:
    """What a peer may do."""

    max_line_bytes: int = 65536
    max_connections: int = 16
    idle_seconds: float = 0.0
    """A connection that says nothing for so long is closed; 0: never."""


class LinesSource:
    """`agent.ports.Source` over an endpoint's lines."""

    def __init__(
        self,
        endpoint: Endpoint,
        new_decoder: Callable[[], Decoder],
        packer: Packer,
        tally: Tally,
        limits: LineLimits,
        *,
        live: bool,
    ) -> None:
        self._endpoint = endpoint
        self._new_decoder = new_decoder
        self._packer = packer
        self._limits = limits
        self._queue: asyncio.Queue[list[Row] | None] = asyncio.Queue(QUEUE_CHUNKS)
        self._clients: set[asyncio.Task[Any] | None] = set()
        self._error: InvalidInputError | None = None
        self.faults = packer.faults
        self.tally = tally
        self.live = live

    def select(self, features: list[str]) -> None:
        """Give these features from the next batch on."""
        self._packer.select(features)

    def take_dropped(self) -> dict[str, int]:
        """Lines it could not use since the last call."""
        return self.tally.take()

    async def batches(self) -> AsyncGenerator[Samples, None]:
        """Yield what the endpoint reads, until it ends."""
        self._queue, self._error = asyncio.Queue(QUEUE_CHUNKS), None
        endpoint = asyncio.create_task(self._run(), name="lines")
        try:
            while (rows := await self._queue.get()) is not None:
                for start in range(0, len(rows), BATCH_ROWS):
                    samples = self._packer.pack(rows[start : start + BATCH_ROWS])
                    if samples.times_ms:
                        yield samples
            if self._error is not None:
                raise self._error
        finally:
            for task in (endpoint, *self._clients):
                if task is not None:
                    task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await endpoint

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read one stream to its end."""
        splitter, decode = LineSplitter(self._limits.max_line_bytes), self._new_decoder()
        idle = self._limits.idle_seconds or None
        while chunk := await _within(idle, reader.read(CHUNK_BYTES)):
            await self._hand_on(splitter, decode(splitter.feed(chunk)))
        await self._hand_on(splitter, decode(splitter.end()))

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one client; a broken one is no more than gone."""
        task = asyncio.current_task()
        self._clients.add(task)
        try:
            if len(self._clients) > self._limits.max_connections:
                self.tally.tell_once(
                    "too-many-connections",
                    f"lines: a connection above {self._limits.max_connections} was closed",
                )
                return
            _keep_alive(writer)
            with contextlib.suppress(OSError, TimeoutError):
                await self.read(reader)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _run(self) -> None:
        try:
            await self._endpoint(self)
        except InvalidInputError as error:
            self._error = error
        await self._queue.put(None)

    async def _hand_on(self, splitter: LineSplitter, rows: list[Row]) -> None:
        if splitter.too_long:
            self.tally.drop(
                TOO_LONG,
                f"lines: expected at most {self._limits.max_line_bytes} bytes a line, got more",
                splitter.too_long,
            )
            splitter.too_long = 0
        if rows:
            await self._queue.put(rows)


async def read_stdin(source: LinesSource) -> None:
    """Standard input, to its end."""
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        await source.read(reader)
    finally:
        transport.close()


def listen_on(start: Callable[..., Awaitable[asyncio.Server]], where: str) -> Endpoint:
    """Accept clients for ever."""

    async def run(source: LinesSource) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # asyncio's own callback complains of a task that ends cancelled
            with contextlib.suppress(asyncio.CancelledError):
                await source.accept(reader, writer)

        try:
            server = await start(serve)
        except OSError as error:
            raise InvalidInputError(f"source.listen {where}: {error}") from error
        async with server:
            await asyncio.Event().wait()

    return run


def connect_to(
    start: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]], where: str
) -> Endpoint:
    """Connect, read, and connect again for ever."""

    async def run(source: LinesSource) -> None:
        delay = BACKOFF_SECONDS[0]
        while True:
            try:
                reader, writer = await _within(CONNECT_SECONDS, start())
            except (OSError, TimeoutError) as error:
                source.tally.tell_once("not-connected", f"source.connect {where}: {error!r}")
            else:
                delay = BACKOFF_SECONDS[0]
                source.tally.forget("not-connected")
                await source.accept(reader, writer)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(delay * 2, BACKOFF_SECONDS[1])

    return run


async def _within(seconds: float | None, waited: Awaitable[_Value]) -> _Value:
    """What is waited for, or `TimeoutError`; `wait_for` can lose a cancellation (Python 3.11)."""
    async with asyncio.timeout(seconds):
        return await waited


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Notice a peer that lost its power: it would hold its place for ever."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _tcp_endpoint(options: dict[str, Any]) -> Endpoint:
    if options["listen"]:
        host, port = split_address(options["listen"])
        return listen_on(
            lambda accept: asyncio.start_server(accept, host, port, limit=CHUNK_BYTES),
            options["listen"],
        )
    host, port = split_address(options["connect"])
    return connect_to(
        lambda: asyncio.open_connection(host, port, limit=CHUNK_BYTES), options["connect"]
    )


def _unix_endpoint(options: dict[str, Any]) -> Endpoint:
    if not options["listen"]:
        path = options["connect"]
        return connect_to(lambda: asyncio.open_unix_connection(path, limit=CHUNK_BYTES), path)
    path = options["listen"]

    async def start(accept: Any) -> asyncio.Server:
        server = await asyncio.start_unix_server(accept, path, limit=CHUNK_BYTES)
        os.chmod(path, 0o660)  # noqa: PTH101 - at once, nothing to wait for
        return server

    return listen_on(start, path)


_LINE_KEYS = {
    "format": Key("text", "json", choices=("json", "csv")),
    "fields": Key("texts", []),
    "delimiter": Key("text", ","),
    "max_line_bytes": Key("integer", 65536, 64, MAX_LINE_BYTES),
    **ROW_KEYS,
}
_SOCKET_KEYS = {
    "listen": Key("text", ""),
    "connect": Key("text", ""),
    "max_connections": Key("integer", 16, 1, 1024),
    "idle_seconds": Key("number", 0.0, 0, 86400),
    **_LINE_KEYS,
}


def _problems(at: str, options: dict[str, Any]) -> list[str]:
    Packer.of(options, Tally())
    found = []
    if len(options["delimiter"]) != 1:
        found.append(f"{at}.delimiter: expected one character, got {options['delimiter']!r}")
    if "listen" in options and bool(options["listen"]) == bool(options["connect"]):
        found.append(f"{at}.listen: expected either listen or connect")
    return found


def _tcp_problems(at: str, options: dict[str, Any]) -> list[str]:
    if not (found := _problems(at, options)):
        _tcp_endpoint(options)
    return found


def _make(endpoint: Endpoint, options: dict[str, Any], context: SourceContext) -> LinesSource:
    def new_decoder() -> Decoder:
        if options["format"] == "json":
            return json_lines
        return CsvLines(options["fields"], options["delimiter"])

    limits = LineLimits(
        options["max_line_bytes"], options.get("max_connections", 1), options.get("idle_seconds", 0)
    )
    packer = Packer.of(options, context.tally)
    live = "listen" in options  # standard input is a pipe, and waits
    return LinesSource(endpoint, new_decoder, packer, context.tally, limits, live=live)


STDIN = SourceKind(
    {**_LINE_KEYS, "max_line_bytes": Key("integer", MAX_LINE_BYTES, 64, MAX_LINE_BYTES)},
    lambda options, context: _make(read_stdin, options, context),
    _problems,
)
TCP = SourceKind(
    _SOCKET_KEYS,
    lambda options, context: _make(_tcp_endpoint(options), options, context),
    _tcp_problems,
)
UNIX = SourceKind(
    _SOCKET_KEYS,
    lambda options, context: _make(_unix_endpoint(options), options, context),
    _problems,
)
