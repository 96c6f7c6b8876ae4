"""Commands: what an operator asks of one device, signed and expiring like a desired state.

The controller publishes a command in an envelope signed by the director key. They only look: log
lines, a support bundle, captured samples, an answer computed again. So a command that is delivered
twice, or replayed before it expires, costs its answer once more and changes nothing.

`check_command` holds the rules that need no key; they run after the signature is verified.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from shoal.errors import InvalidInputError, UntrustedError
from shoal.ids import NAME_PATTERN
from shoal.protocol import SCHEMA

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53)]

MAX_VALID = timedelta(days=1)
"""A command that is valid for longer is refused: it should never be found again in a year."""


class LogTail(Struct, frozen=True, forbid_unknown_fields=True, tag="log-tail", tag_field="kind"):
    """The newest log lines of the agent."""

    lines: Annotated[int, Meta(ge=1, le=1000)] = 200


class SupportBundle(
    Struct, frozen=True, forbid_unknown_fields=True, tag="support-bundle", tag_field="kind"
):
    """Everything a person needs to help from afar, without secrets."""


class CaptureRange(
    Struct, frozen=True, forbid_unknown_fields=True, tag="capture-range", tag_field="kind"
):
    """Send captured samples whose time is within the range, newest first."""

    model: Name
    since_ms: Milliseconds = 0
    until_ms: Milliseconds = 2**53
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Replay(Struct, frozen=True, forbid_unknown_fields=True, tag="replay", tag_field="kind"):
    """Run a captured sample on every slot of its model that holds a release."""

    model: Name
    capture: Annotated[str, Meta(min_length=1, max_length=40)]


Order = LogTail | SupportBundle | CaptureRange | Replay


class Command(Struct, kw_only=True, frozen=True):
    """One command to one device."""

    schema: int = SCHEMA
    device: Name
    command: Name
    """Its id; replies name it."""
    issued: datetime
    expires: datetime
    order: Order


def parse_order(document: object) -> Order:
    """An order out of plain values with `kind` and its options, or `InvalidInputError`."""
    try:
        order: Order = msgspec.convert(document, type=Order)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"command: {error}") from error
    return order


def decode_command(payload: bytes) -> Command:
    """Decode a verified payload."""
    try:
        return msgspec.json.decode(payload, type=Command)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"command: {error}", code="command-malformed") from error


def check_command(command: Command, *, device: str, now: datetime) -> None:
    """Raise `UntrustedError` unless `device` may answer `command` at `now`."""
    if command.device != device:
        raise UntrustedError(
            f"command {command.command}: expected device {device}, got {command.device}",
            code="wrong-device",
        )
    if command.schema > SCHEMA:
        raise UntrustedError(
            f"command {command.command}: schema {command.schema}, this agent reads up to {SCHEMA}",
            code="schema-too-new",
        )
    if command.expires - command.issued > MAX_VALID:
        raise UntrustedError(
            f"command {command.command}: valid for {command.expires - command.issued}, "
            f"at most {MAX_VALID} allowed",
            code="valid-too-long",
        )
    if now >= command.expires:
        raise UntrustedError(
            f"command {command.command}: expired {command.expires.isoformat()}, "
            f"now {now.isoformat()}",
            code="expired",
        )
