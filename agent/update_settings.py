"""Settings of updates, as the integrator gives them."""

from __future__ import annotations

from dataclasses import dataclass

from agent.updater.wire import Sources

TRANSPORTS = ("http", "mqtt", "auto")


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """Where releases and metadata come from, and how often newer metadata are asked for."""

    transport: str = "auto"
    """http, mqtt, or auto: the broker where no HTTP answers."""
    mirrors: tuple[str, ...] = ()
    max_bytes_per_second: float = 0.0
    """0: as fast as it comes."""
    min_bytes_per_second: float = 4096.0
    grace_seconds: float = 30.0
    refresh_seconds: float = 6 * 3600.0

    @property
    def sources(self) -> Sources:
        """What an updater is told of this."""
        return Sources(
            transport=self.transport,
            mirrors=list(self.mirrors),
            max_bytes_per_second=self.max_bytes_per_second,
            min_bytes_per_second=self.min_bytes_per_second,
            grace_seconds=self.grace_seconds,
        )
