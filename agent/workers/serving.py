"""Inside a worker: hash, load, then answer frames until the agent hangs up.

Everything here runs in a clone of the forkserver and may die at any moment; nothing outside
depends on its memory but the statistics of the window under way, which are counted as lost.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import msgspec

from agent.runtime_error import RuntimeLoadError
from agent.workers import frames
from agent.workers.frames import Kind
from agent.workers.limits import limit_address_space
from agent.workers.loaded import LoadedModel
from agent.workers.order import LoadOrder, Release
from agent.workers.trim import trim_memory
from shoal.errors import ShoalError

Load = Callable[[Release, LoadOrder], LoadedModel]


def load_full(release: Release, order: LoadOrder) -> LoadedModel:
    """With numpy."""
    try:
        from agent.workers.worker import Model
    except ModuleNotFoundError as error:
        raise RuntimeLoadError(
            f"{release.variant.file}: its runtime or a preprocessing step needs numpy, which is "
            f"not installed ({error})",
            code="no-runtime",
        ) from error
    return Model(release, order)


def load_lean(release: Release, order: LoadOrder) -> LoadedModel:
    """Without numpy where the release allows it."""
    from agent.lean.model import LeanModel

    return LeanModel(release, order) if LeanModel.fits(release) else load_full(release, order)


def serve(connection: socket.socket, region: memoryview, load: Load) -> None:
    """Answer frames on a blocking socket until it closes. `region`: where shared rows lie."""
    model: LoadedModel | None = None
    incoming = _Incoming(connection)
    trimmed = False
    while (frame := incoming.next()) is not None:
        kind, payload = frame
        try:
            if kind is Kind.LOAD:
                order = msgspec.json.decode(payload, type=LoadOrder)
                limit_address_space(order.memory_bytes)
                model = load(Release(order), order)
                answer = (Kind.INFO, msgspec.json.encode(model.facts()))
            elif model is None:
                raise RuntimeLoadError(f"worker: {kind.name} before LOAD")
            elif kind is Kind.INFER or kind is Kind.INFER_SHARED:
                request = (
                    frames.decode_infer(payload)
                    if kind is Kind.INFER
                    else frames.decode_infer_shared(payload, region)
                )
                answer = (Kind.ANSWER, frames.encode_answer(model.infer(request)))
            else:
                answer = (Kind.INFO, model.handle(kind))
        except ShoalError as error:
            answer = (Kind.ERROR, json.dumps([error.code, error.sentence]).encode())
        except MemoryError:
            answer = (Kind.ERROR, b'["worker-memory", "worker: out of memory"]')
        connection.sendall(frames.encode(*answer))
        if kind is Kind.STATISTICS and not trimmed:
            trimmed = True  # every path has run by now: the rest was for starting up
            trim_memory()  # 10 ms, so not before the answer: a swap may wait for it


class _Incoming:
    """Frames from the socket. The room for a payload is used again: it may be megabytes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._room = bytearray(frames.HEADER.size)

    def next(self) -> tuple[Kind, memoryview] | None:
        """The next frame; its payload is good until the one after. None at the end."""
        header = self._exactly(frames.HEADER.size)
        if header is None:
            return None
        length, kind = frames.decode_header(header)
        payload = self._exactly(length)
        return None if payload is None else (kind, payload)

    def _exactly(self, length: int) -> memoryview | None:
        if len(self._room) < length:
            self._room = bytearray(length)
        view, filled = memoryview(self._room)[:length], 0
        while filled < length:
            got = self._connection.recv_into(view[filled:])
            if not got:
                return None
            filled += got
        return view
