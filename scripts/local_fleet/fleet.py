"""A whole fleet on this machine: controller, broker and agents, with a client of the API.

with LocalFleet(folder) as fleet:
    fleet.start_controller()
    fleet.enrol([AgentSpec("gw-1", "jfk")])
    fleet.start_agents()
    fleet.client.fleet()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from local_fleet import processes
from local_fleet.agents import Agent, AgentSpec, enrol_all
from local_fleet.controller import Controller
from local_fleet.processes import Child, LocalFleetError
from local_fleet.signing import SigningFolder
from shoal.client import Client
from shoal.signing import FileSigner

_Value = TypeVar("_Value")

ONLINE_SECONDS = 120.0
SETTLE_POLL_SECONDS = 0.3


class LocalFleet:
    """Starts things in `folder` and ends them all when closed."""

    def __init__(
        self,
        folder: Path,
        *,
        broker: str = "auto",
        port: int | None = None,
        more: dict[str, object] | None = None,
    ) -> None:
        """`more`: further tables of the controller's configuration."""
        self.folder = folder
        self.logs = folder / "logs"
        chosen = Controller.choose(folder / "controller", broker, port)
        self.controller = replace(chosen, more=more or {})
        self.signer = FileSigner.load_or_create(folder / "keys" / "release.key")
        self.signing = SigningFolder(folder / "keys")
        self.agents: dict[str, Agent] = {}
        self.children: dict[str, Child] = {}
        self._client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process, agents first."""
        if self._client is not None:
            self._client.close()
        serving = self.children.pop("controller", None)
        processes.stop(list(self.children.values()))
        self.children.clear()
        if serving is not None:
            processes.stop([serving])

    @property
    def url(self) -> str:
        """The controller's address."""
        return self.controller.url

    @property
    def client(self) -> Client:
        """A client with the operator's token."""
        if self._client is None:
            self._client = Client(self.url, self.controller.operator_token())
        return self._client

    def sign_in_url(self) -> str:
        """A fresh address that opens the dashboard signed in as operator, once."""
        return str(self.client.create_sign_in_link()["url"])

    def start_controller(self, *, with_root: bool = True) -> Child:
        """Make the controller's state where there is none, start it, publish its first root."""
        self.controller.init(self.signer.public_key)
        child = self.controller.start(self.logs)
        self.children["controller"] = child
        self.controller.wait_ready(child, self.client)
        if with_root:
            self.signing.init(self.client)
        return child

    def release(self, package: Path) -> None:
        """Upload a package and publish it, signed by the targets key."""
        self.signing.release(self.client, package)

    def enrol(self, specs: Iterable[AgentSpec]) -> None:
        """Enrol devices, each with a one-time token of its own."""
        new = [Agent(spec, self.folder / "devices" / spec.device) for spec in specs]
        for agent in new:
            token = self.client.create_enrolment_token(device=agent.spec.device)["token"]
            agent.prepare(self.url, str(token))
        enrol_all(new)
        self.agents |= {agent.spec.device: agent for agent in new}

    def find_agents(self, specs: Iterable[AgentSpec]) -> None:
        """Take up devices that an earlier run enrolled in this folder."""
        for spec in specs:
            agent = Agent(spec, self.folder / "devices" / spec.device)
            agent.prepare(self.url, None)
            self.agents[spec.device] = agent

    def start_agents(self) -> None:
        """Start every enrolled agent that does not run, and wait until all are online."""
        for name in self.agents:
            if name not in self.children or not self.children[name].running:
                self.start_agent(name)
        self.wait_for(lambda: self._all_online() or None, ONLINE_SECONDS, "all devices online")

    def start_agent(self, name: str) -> Child:
        """Start one agent."""
        self.children[name] = self.agents[name].start(self.logs)
        return self.children[name]

    def stop_agent(self, name: str) -> None:
        """End one agent orderly, if it runs."""
        child = self.children.pop(name, None)
        if child is not None:
            processes.stop([child])

    def kill_agent(self, name: str) -> None:
        """SIGKILL one agent, as a power cut would."""
        self.children.pop(name).kill()

    def wait_for(self, condition: Callable[[], _Value | None], seconds: float, what: str) -> _Value:
        """Wait for a condition, watching that nothing has died meanwhile."""

        def check() -> _Value | None:
            self.check_running()
            return condition()

        return processes.wait_until(check, seconds, what, self.children["controller"])

    def settle(self, lacks: Callable[[], list[str]], seconds: float) -> list[str]:
        """Wait until nothing is lacking any more; return what still is after `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := lacks()) and time.monotonic() < deadline:
            self.check_running()
            time.sleep(SETTLE_POLL_SECONDS)
        return left

    def check_running(self) -> None:
        """Raise with the log's tail of the first process that has ended by itself."""
        for child in self.children.values():
            if not child.running:
                raise LocalFleetError(
                    f"{child.name} ended with code {child.process.returncode}; "
                    f"log {child.log}:\n{child.tail()}"
                )

    def _all_online(self) -> bool:
        online = {one["device"] for one in self.client.devices() if one["online"]}
        return set(self.agents) <= online
