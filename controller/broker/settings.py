"""The values a broker's configuration is made of, with our limits as defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shoal.protocol import MAX_MESSAGE_BYTES

PACKET_OVERHEAD_BYTES = 4096
"""Room for the topic and the headers around the largest message."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The broker's side of TLS, PEM: itself, and whom it believes."""

    certificate: Path
    key: Path
    device_authority: Path
    """Who signs devices, and nobody else: every authority here can make identities."""
    controller_authority: Path
    """Who signs the controller's own processes."""
    both_authorities: Path
    """For a broker with one listener."""
    revocations: Path
    """Device certificates taken back."""

    @classmethod
    def within(cls, folder: Path) -> TlsFiles:
        """Where we put them."""
        return cls(*(folder / name for name in TLS_NAMES))


TLS_NAMES = (
    "broker.pem",
    "broker.key",
    "device-ca.pem",
    "controller-ca.pem",
    "all-ca.pem",
    "revoked.pem",
)


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker listens and keeps its files, and how much it may hold."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8883
    """For devices."""
    controller_port: int = 8884
    """For the controller's processes, on 127.0.0.1; only with TLS, and where the broker can."""
    controller_host: str = "127.0.0.1"
    probe: bool = True
    """Whether a socket in the folder lets `controller_probe` see that the files were read."""
    run_as: str | None = None
    """User that mosquitto changes to when started as root; None keeps its own default."""
    tls: TlsFiles | None = None
    """None: passwords on a plain listener, for load tests."""
    max_packet_bytes: int = MAX_MESSAGE_BYTES + PACKET_OVERHEAD_BYTES
    max_inflight_messages: int = 500
    max_queued_messages: int = 1_000_000
    max_queued_bytes: int = 512 * 1024 * 1024
    save_seconds: int = 30
    """How often mosquitto writes sessions and retained messages to disk; a SIGKILL loses that."""
    session_days: int = 30
    """How long the session of a device that stays away is kept."""
