"""Real `shoal-agent` processes, each with its own configuration and state folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_fleet import processes
from local_fleet.processes import Child
from local_fleet.toml_text import to_toml

ENROL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One device: who it is and what it reads."""

    device: str
    site: str
    profile: str = "x86-64-gateway"
    models: dict[str, Any] = field(default_factory=dict)
    """Model name to {"source": {…}, "actions": [{…}]}, as in the agent's configuration."""
    window_seconds: float = 1.0
    health_seconds: float = 2.0
    more: dict[str, Any] = field(default_factory=dict)
    """Further tables of the configuration."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A device's folder: `agent.toml`, `state/`, `token` until it is enrolled."""

    spec: AgentSpec
    folder: Path

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.folder / "agent.toml"

    def prepare(self, controller_url: str, token: str | None) -> None:
        """Write its configuration, and the token where it is to enrol."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(to_toml(self._configuration(controller_url)), encoding="utf-8")
        if token is not None:
            path = self.folder / "token"
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(token + "\n")

    def enrol(self) -> None:
        """Run `shoal-agent enrol` to its end."""
        command = [*COMMAND, "enrol", "--config", self.config]
        processes.run([*command, "--token-file", self.folder / "token"], timeout=ENROL_SECONDS)

    def start(self, logs: Path) -> Child:
        """Start `shoal-agent run`."""
        return processes.start(self.spec.device, [*COMMAND, "run", "--config", self.config], logs)

    def _configuration(self, controller_url: str) -> dict[str, Any]:
        return {
            "device": {
                "id": self.spec.device,
                "site": self.spec.site,
                "profile": self.spec.profile,
                "state_dir": str(self.folder / "state"),
            },
            "controller": {"url": controller_url},
            "report": {
                "window_seconds": self.spec.window_seconds,
                "health_seconds": self.spec.health_seconds,
            },
            **self.spec.more,
            "models": self.spec.models,
        }


COMMAND = [str(Path(sys.executable).with_name("shoal-agent"))]


def enrol_all(agents: Iterable[Agent]) -> None:
    """Enrol agents, as many at once as there are processors."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        list(pool.map(Agent.enrol, agents))
