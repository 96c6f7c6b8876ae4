"""The values a broker's configuration is made of, with our limits as defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shoal.protocol import MAX_MESSAGE_BYTES

PACKET_OVERHEAD_BYTES = 4096
"""Room for the topic and the headers around the largest message."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The server's own certificate and key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker listens and keeps its files, and how much it may hold."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 1883
    run_as: str | None = None
    """User that mosquitto changes to when started as root; None keeps its own default."""
    tls: TlsFiles | None = None
    max_packet_bytes: int = MAX_MESSAGE_BYTES + PACKET_OVERHEAD_BYTES
    max_inflight_messages: int = 500
    max_queued_messages: int = 1_000_000
    max_queued_bytes: int = 512 * 1024 * 1024
    save_seconds: int = 30
    """How often mosquitto writes sessions and retained messages to disk; a SIGKILL loses that."""
    session_days: int = 30
    """How long the session of a device that stays away is kept."""
