"""Serving documents in blocks to devices that reach only the broker.

It answers what the web server would: published metadata and files by their hash, nothing else. A
device paces itself by asking; here only so much waits that a flood of requests costs the senders
their answers, not us our memory.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import BinaryIO

from controller.database import reading
from controller.errors import NotFoundError
from controller.repository import store
from controller.services import Services
from shoal.errors import InvalidInputError, ShoalError
from shoal.ids import DeviceId, SiteId
from shoal.protocol.blocks import (
    MAX_BLOCKS,
    NOT_THERE,
    OK,
    Block,
    BlockRequest,
    decode_request,
    encode_block,
)
from shoal.protocol.topics import Channel, Topic, format_topic, parse_topic

log = logging.getLogger("controller.blocks")

MAX_WAITING = 256
OpenDocument = Callable[[str], BinaryIO]
Publish = Callable[[str, bytes], None]


class BlockServer:
    """One thread that answers requests, in the order in which they came."""

    def __init__(self, open_document: OpenDocument, publish: Publish) -> None:
        self._open = open_document
        self._publish = publish
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="blocks", daemon=True)
        self._thread.start()
        self.turned_away = 0
        """Requests for which there was no room; the device asks again."""

    def take(self, topic: str, payload: bytes) -> None:
        """A message came on some device's `fetch`."""
        try:
            self._waiting.put_nowait((topic, payload))
        except queue.Full:
            self.turned_away += 1

    def close(self) -> None:
        """End the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (one := self._waiting.get()) is not None:
            try:
                self._answer(*one)
            except (ShoalError, OSError) as error:
                log.warning("event=refused topic=%r error=%r", one[0][:200], str(error))

    def _answer(self, topic: str, payload: bytes) -> None:
        asked = parse_topic(topic)
        if asked.channel is not Channel.FETCH:
            raise InvalidInputError(f"topic {topic[:200]!r}: expected {Channel.FETCH.value}")
        request = decode_request(payload)
        answer = format_topic(
            Topic(
                SiteId(asked.site),
                DeviceId(asked.device),
                Channel.BLOCKS,
                transfer=request.transfer,
            )
        )
        try:
            document = self._open(request.path)
        except ShoalError:
            self._publish(answer, encode_block(Block(NOT_THERE, request.offset, 0, b"")))
            return
        with document:
            for block in cut(document, request):
                self._publish(answer, encode_block(block))


def open_published(services: Services, path: str) -> BinaryIO:
    """What the web server serves below `/repository`, or `NotFoundError`."""
    folder, _, name = path.partition("/")
    if folder == "files":
        return services.artifacts.path(name).open("rb")
    with reading(services.engine) as connection:
        body = store.named_body(connection, name)
    if body is None:
        raise NotFoundError(f"metadata {name[:80]!r}: not published")
    return BytesIO(body)


def cut(document: BinaryIO, request: BlockRequest) -> Iterator[Block]:
    """The blocks that a request misses, as far as the document goes; the first always comes."""
    total = document.seek(0, 2)
    for index in range(MAX_BLOCKS):
        begin = request.offset + index * request.block_bytes
        if not request.missing & (1 << index) or (index and begin >= total):
            continue
        document.seek(begin)
        yield Block(OK, begin, total, document.read(request.block_bytes))
