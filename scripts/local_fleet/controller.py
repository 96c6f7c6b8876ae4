"""A real `shoal-controller` with its own folder: configuration, keys, database, broker."""

from __future__ import annotations

import base64
import sys
from dataclasses import dataclass, field
from pathlib import Path

from local_fleet import processes
from local_fleet.ports import HOST, free_ports
from local_fleet.processes import Child
from local_fleet.toml_text import to_toml
from shoal.client import Client
from shoal.errors import ShoalError

INIT_SECONDS = 60.0
READY_SECONDS = 90.0
OFFLINE_AFTER_SECONDS = 30.0
COMMAND = [str(Path(sys.executable).with_name("shoal-controller"))]


@dataclass(frozen=True, slots=True)
class Controller:
    """Where it lives and listens."""

    folder: Path
    broker: str
    web_port: int
    broker_port: int
    plain: bool = False
    """Passwords in place of certificates: for load tests, which bring their own broker."""
    more: dict[str, object] = field(default_factory=dict)
    """Further tables of the configuration."""

    @classmethod
    def choose(
        cls, folder: Path, broker: str, port: int | None, *, plain: bool = False
    ) -> Controller:
        """Keep the ports of an earlier run in `folder`, else take free ones."""
        kept = folder / "ports"
        if kept.exists():
            web, mqtt = (int(word) for word in kept.read_text(encoding="ascii").split())
            return cls(folder, broker, port or web, mqtt, plain)
        web, mqtt = free_ports(2)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = cls(folder, broker, port or web, mqtt, plain)
        kept.write_text(f"{chosen.web_port} {chosen.broker_port}\n", encoding="ascii")
        return chosen

    @property
    def url(self) -> str:
        """Address of dashboard and API."""
        return f"http://{HOST}:{self.web_port}"

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.folder / "controller.toml"

    @property
    def token_file(self) -> Path:
        """The operator's token."""
        return self.folder / "operator.token"

    def operator_token(self) -> str:
        """The token itself."""
        return self.token_file.read_text(encoding="ascii").strip()

    def init(self, release_public_key: bytes) -> None:
        """Write the configuration, make the state, and trust a release key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(to_toml(self._configuration()), encoding="utf-8")
        options = ["--config", self.config]
        processes.run([*COMMAND, "init", *options], timeout=INIT_SECONDS)
        key = base64.b64encode(release_public_key).decode()
        processes.run([*COMMAND, "trust-release-key", *options, key], timeout=INIT_SECONDS)

    def start(self, logs: Path) -> Child:
        """Start `shoal-controller serve`."""
        command = [*COMMAND, "serve", "--config", self.config]
        return processes.start("controller", command, logs)

    def wait_ready(self, child: Child, client: Client) -> None:
        """Wait until it and all its parts run."""

        def answers() -> bool | None:
            try:
                return client.health()["status"] == "ok" or None
            except ShoalError:
                return None

        processes.wait_until(answers, READY_SECONDS, "the controller answers", child)

    def _configuration(self) -> dict[str, object]:
        return {
            "offline_after_seconds": OFFLINE_AFTER_SECONDS,
            "web": {"host": HOST, "port": self.web_port, "anonymous": "viewer"},
            "broker": self._broker(),
            **self.more,
        }

    def _broker(self) -> dict[str, object]:
        found: dict[str, object] = {"mode": self.broker, "host": HOST, "port": self.broker_port}
        return found | ({"tls": False} if self.plain else {})
