"""What agent and updater say to each other, a line of JSON each.

One request goes in. Out come progress and one result; a transfer over the broker asks for blocks
meanwhile, which the agent passes on, and passes back what comes for it.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from shoal.protocol.desired import Assignment


class Sources(Struct, frozen=True):
    """Where bytes may come from, and how fast."""

    transport: str = "http"
    """http, mqtt, or auto: the broker where no HTTP answers."""
    mirrors: list[str] = []
    """Base URLs tried before the controller's own."""
    max_bytes_per_second: float = 0.0
    min_bytes_per_second: float = 4096.0
    grace_seconds: float = 30.0


class VerifyRequest(Struct, frozen=True, tag="verify"):
    """Is this envelope a desired state that this device may obey?"""

    state_dir: str
    device: str
    floor: int
    envelope: bytes
    sources: Sources = Sources()
    may_refresh: bool = True
    """Whether newer metadata may be asked for when the director's keys are not known here."""


class VerifyCommandRequest(Struct, frozen=True, tag="verify-command"):
    """Is this envelope a command that this device may answer?"""

    state_dir: str
    device: str
    envelope: bytes
    sources: Sources = Sources()
    may_refresh: bool = True


class FetchRequest(Struct, frozen=True, tag="fetch"):
    """Bring an assigned release onto the disk."""

    state_dir: str
    assignment: Assignment
    facts: dict[str, str | int | float | bool]
    sources: Sources = Sources()


class RefreshRequest(Struct, frozen=True, tag="refresh"):
    """Ask for newer metadata."""

    state_dir: str
    sources: Sources = Sources()


class Progress(Struct, frozen=True, tag="progress"):
    """Bytes of the release that are on the disk."""

    done: int
    total: int


class Reached(Struct, frozen=True, tag="reached"):
    """A step of a fetch is done: `verified`, then `compatible`."""

    step: str


class Verified(Struct, frozen=True, tag="verified"):
    """The verified payload: a `DesiredState` or `Command` in JSON."""

    payload: bytes


class Staged(Struct, frozen=True, tag="staged"):
    """Everything of the release that this device needs lies in its files folder."""

    variant: str
    memory_bytes: int = 0
    """What loading it takes, estimated; 0 where that is not known."""


class Asked(Struct, frozen=True, tag="asked"):
    """Publish this on `fetch`; what comes on `blocks/<transfer>` is for this process."""

    transfer: str
    payload: bytes


class Came(Struct, frozen=True, tag="came"):
    """To the updater: a message of a transfer; an empty payload is a link that is down."""

    transfer: str
    payload: bytes


class Refreshed(Struct, frozen=True, tag="refreshed"):
    """The metadata is fresh."""

    versions: dict[str, int]
    time_ms: int
    """The latest signed time."""


class Refused(Struct, frozen=True, tag="refused"):
    """It did not, and why. `retryable`: the same again may work later."""

    code: str
    sentence: str
    retryable: bool


Request = VerifyRequest | VerifyCommandRequest | FetchRequest | RefreshRequest
Reply = Progress | Reached | Asked | Verified | Staged | Refreshed | Refused

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_came: msgspec.json.Decoder[Came] = msgspec.json.Decoder(Came)


def decode_request(data: bytes) -> Request:
    """Decode a request."""
    return _requests.decode(data)


def decode_came(line: bytes) -> Came:
    """Decode one line of what the agent passes on."""
    return _came.decode(line)


def decode_reply(line: bytes) -> Reply:
    """Decode one line of what the updater says."""
    return _replies.decode(line)
