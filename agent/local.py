"""The agent's local HTTP side: built only where it is configured, for the memory it takes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agent.address import split_address
from agent.config import HttpSettings
from agent.pipeline import WorkerPipeline
from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from agent.inference import InferenceService
    from agent.local_http import LocalHttp

log = logging.getLogger("agent.http")

RETRY_SECONDS = 10.0


class LocalSide:
    """The server, and the inference service behind it."""

    def __init__(
        self, settings: HttpSettings, server: LocalHttp, inference: InferenceService | None
    ) -> None:
        self._settings = settings
        self.server = server
        self._inference = inference

    def add(self, model: str, pipeline: WorkerPipeline) -> None:
        """Answer for this model too."""
        if self._inference is not None:
            self._inference.add(model, pipeline)

    async def run(self) -> None:
        """Serve; where it cannot listen, try again: the agent has more to do than this."""
        address = split_address(self._settings.listen) if self._settings.listen else None
        while True:
            try:
                await self.server.run(address, self._settings.socket)
            except InvalidInputError as error:
                log.error("local http failed error=%r", error.sentence)
            await asyncio.sleep(RETRY_SECONDS)


def open_local(settings: HttpSettings) -> LocalSide | None:
    """The local side, if it is configured."""
    if not settings.enabled:
        return None
    from agent.inference import InferenceService
    from agent.local_http import HttpLimits, LocalHttp

    server = LocalHttp(HttpLimits(settings.max_body_bytes, settings.max_connections))
    inference = InferenceService(settings.timeout_seconds) if settings.inference else None
    if inference is not None:
        server.add(inference.handle)
    return LocalSide(settings, server, inference)
