"""What agent and updater say to each other."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from shoal.protocol.desired import Assignment


class VerifyRequest(Struct, frozen=True, tag="verify"):
    """Is this envelope a desired state that this device may obey?"""

    state_dir: str
    device: str
    floor: int
    envelope: bytes
    now_ms: int = 0
    """The agent's time; it may be ahead of a system clock that starts in 1970."""


class VerifyCommandRequest(Struct, frozen=True, tag="verify-command"):
    """Is this envelope a command that this device may answer?"""

    state_dir: str
    device: str
    envelope: bytes
    now_ms: int = 0


class FetchRequest(Struct, frozen=True, tag="fetch"):
    """Bring an assigned release onto the disk."""

    state_dir: str
    assignment: Assignment
    facts: dict[str, str | int | float | bool]


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


class Refused(Struct, frozen=True, tag="refused"):
    """It did not, and why. `retryable`: the same again may work later."""

    code: str
    sentence: str
    retryable: bool


Request = VerifyRequest | VerifyCommandRequest | FetchRequest
Reply = Progress | Reached | Verified | Staged | Refused

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def decode_request(data: bytes) -> Request:
    """Decode a request."""
    return _requests.decode(data)


def decode_reply(line: bytes) -> Reply:
    """Decode one line of what the updater says."""
    return _replies.decode(line)
