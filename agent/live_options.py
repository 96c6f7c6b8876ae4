"""What an operator may set from afar: the newest options of the desired state, over the device's
own configuration.

Whoever waits for a period to end also wakes when the options change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from agent.config import AgentConfig
from shoal.logs import default_level
from shoal.protocol.desired import LOG_LEVELS, DeviceOptions


class LiveOptions:
    """The options in force now."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._options = DeviceOptions()
        self._changed = asyncio.Event()

    @property
    def window_seconds(self) -> float:
        """How long a reporting window is."""
        return self._options.window_seconds or self._config.window_seconds

    @property
    def health_seconds(self) -> float:
        """How far apart two health messages are."""
        return self._options.health_seconds or self._config.health_seconds

    def may_capture(self) -> bool:
        """Whether rows may be kept: both the integrator and the operator can forbid it."""
        return self._config.capture_enabled and self._options.capture is not False

    def put(self, options: DeviceOptions) -> None:
        """Use these from now on."""
        self._options = options
        level = options.log_level
        logging.getLogger().setLevel(level.upper() if level in LOG_LEVELS else default_level())
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, seconds: float) -> None:
        """Sleep, but not through a change of the options."""
        changed = self._changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await changed.wait()
