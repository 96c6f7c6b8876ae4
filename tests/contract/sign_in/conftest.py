"""A real controller whose people sign in at a real OpenID provider."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shoal.client import Client
from shoal.signing import FileSigner

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from local_fleet import processes
from local_fleet.controller import Controller
from local_fleet.ports import free_ports

PEER = Path(__file__).with_name("provider_peer.py")


@dataclass(frozen=True, slots=True)
class Site:
    """Both servers."""

    controller: Controller
    issuer: str

    @property
    def url(self) -> str:
        """Of the controller."""
        return self.controller.url


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Groups fleet-admins and fleet-viewers have roles; who is in neither is let in nowhere."""
    folder = tmp_path_factory.mktemp("site")
    controller = Controller.choose(folder / "controller", "nats", None)
    (port,) = free_ports(1)
    issuer = f"http://127.0.0.1:{port}"
    controller.init(FileSigner.generate().public_key)
    (controller.folder / "client.secret").write_text("secret of the client\n")
    with controller.config.open("a") as file:
        file.write(
            f'\n[oidc]\nissuer = "{issuer}"\nname = "Canaille"\nname_claim = "sub"\n'
            'client_secret_file = "client.secret"\n'
            '[oidc.roles]\nfleet-admins = "admin"\nfleet-viewers = "viewer"\n'
        )
    command = [sys.executable, str(PEER), str(port), controller.url, str(folder / "people")]
    with (folder / "provider.log").open("wb") as log:
        peer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    child = controller.start(folder)
    try:
        assert peer.stdout is not None
        assert peer.stdout.readline() == b"ready\n", (folder / "provider.log").read_text()
        with Client(controller.url) as client:
            controller.wait_ready(child, client)
        yield Site(controller, issuer)
    finally:
        processes.stop([child])
        peer.kill()
        peer.communicate()
