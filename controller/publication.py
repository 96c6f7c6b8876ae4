"""What the director puts on the broker."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.protocol.topics import Channel


@dataclass(frozen=True, slots=True)
class Publication:
    """An envelope for a device: a desired state (retained), or a command."""

    device: str
    site: str
    sequence: int
    envelope: bytes
    command: str = ""

    @property
    def channel(self) -> Channel:
        """Where it goes."""
        return Channel.COMMANDS if self.command else Channel.DESIRED
