"""`python -m agent.updater`: answer one request and end."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from agent.trust import load_trust
from agent.updater.broker import BrokerTransport, LineReader
from agent.updater.director import verify_command, verify_desired
from agent.updater.pace import limits_of
from agent.updater.session import Session
from agent.updater.staging import stage
from agent.updater.transport import Transport
from agent.updater.web import HttpTransport
from agent.updater.wire import (
    Refreshed,
    RefreshRequest,
    Refused,
    Reply,
    Request,
    Sources,
    Verified,
    VerifyCommandRequest,
    VerifyRequest,
    decode_request,
)
from shoal.errors import ShoalError

FINAL = {
    "assignment-mismatch",
    "bad-root",
    "bad-signature",
    "desired-conflict",
    "desired-malformed",
    "command-malformed",
    "envelope-malformed",
    "envelope-too-large",
    "floors-lost",
    "incompatible",
    "memory",
    "no-root",
    "no-trust",
    "old-sequence",
    "release-below-floor",
    "schema-too-new",
    "sequence-jump",
    "unknown-target",
    "valid-too-long",
    "wrong-device",
    "wrong-payload-type",
}
"""What no later try makes good. All else, refusals of metadata among it, may be the transport's
doing: an attacker on the way may hinder, but must not make a device reject a release for good."""


def main() -> None:
    """Read a request from standard input and write the result to standard output."""
    lines = LineReader(sys.stdin.fileno())
    request = decode_request(lines.read() or b"")
    try:
        reply = answer(request, lines)
    except ShoalError as error:
        reply = Refused(error.code, error.sentence, error.code not in FINAL)
    except OSError as error:
        reply = Refused("disk-error", f"updater: {error}", retryable=True)
    _say(reply)


def answer(request: Request, lines: LineReader) -> Reply:
    """Do what is asked."""
    state_dir = Path(request.state_dir)
    sources = request.sources
    transports = make_transports(load_trust(state_dir).repository_url, sources, lines)
    session = Session(state_dir, limits_of(sources), transports)
    if isinstance(request, VerifyRequest):
        return Verified(
            verify_desired(
                session,
                request.envelope,
                device=request.device,
                floor=request.floor,
                may_refresh=request.may_refresh,
            )
        )
    if isinstance(request, VerifyCommandRequest):
        return Verified(
            verify_command(
                session, request.envelope, device=request.device, may_refresh=request.may_refresh
            )
        )
    if isinstance(request, RefreshRequest):
        return refresh(session)
    return stage(session, request, _say)


def refresh(session: Session) -> Refreshed:
    """Ask for newer metadata; tell what there is."""
    floors = session.refresh(lambda client, transports: client.floors)
    versions = {name: floor.version for name, floor in floors.roles.items()}
    return Refreshed(versions, floors.time_ms)


def make_transports(url: str, sources: Sources, lines: LineReader) -> list[Transport]:
    """Caches nearby, then the controller, then the broker."""
    found: list[Transport] = [HttpTransport(one) for one in sources.mirrors]
    if sources.transport != "mqtt":
        found.append(HttpTransport(url))
    if sources.transport != "http":
        found.append(BrokerTransport(lines, _say))
    return found


def _say(reply: Reply) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
