"""`python -m agent.renewal --config FILE`: get the next certificate, and end.

A short-lived process, so that the resident agent imports no cryptography. The key stays; it signs
the request, and the answer is believed when the director has signed it for this request: a key of
the verified `trust/director.json`, as for desired states, so that it may be rotated meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from agent.access import BrokerAccess, load_broker
from agent.config import AgentConfig, load_config
from agent.controller_http import post
from agent.identity import store_identity
from agent.trust import DEVICE_KEY_NAME, load_trust
from agent.updater.director import open_sealed
from agent.updater.pace import limits_of
from agent.updater.session import Session
from agent.updater.web import HttpTransport
from shoal.csr import make_request
from shoal.errors import ShoalError, UntrustedError
from shoal.protocol.envelope import encode_envelope
from shoal.protocol.identity import ANSWER_TYPE, RENEWAL_TYPE, RenewalAnswer, RenewalRequest
from shoal.signing import FileSigner, seal

NONCE_BYTES = 24


def renew(config: AgentConfig) -> BrokerAccess:
    """Ask for a certificate and store it; return the access as it is then."""
    access, session = load_broker(config.state_dir), _session(config)
    key = FileSigner.load(config.state_dir / DEVICE_KEY_NAME)
    request = RenewalRequest(
        device=config.device, nonce=os.urandom(NONCE_BYTES), csr=make_request(config.device, key)
    )
    envelope = seal(msgspec.json.encode(request), RENEWAL_TYPE, key)
    answer = post(f"{config.controller_url}/api/v1/renewals", encode_envelope(envelope))
    found = check_answer(session, answer.body, request)
    renewed = msgspec.structs.replace(
        access,
        host=found.broker_host,
        port=found.broker_port,
        authorities=found.broker_ca,
    )
    store_identity(config.state_dir, key, found.certificate, renewed)
    return load_broker(config.state_dir)


def check_answer(session: Session, body: bytes, request: RenewalRequest) -> RenewalAnswer:
    """Return the answer if the director sealed it for this request."""
    _, payload = open_sealed(session, body, ANSWER_TYPE, may_refresh=True)
    try:
        answer = msgspec.json.decode(payload, type=RenewalAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"renewal: {error}", code="bad-answer") from error
    if (answer.device, answer.nonce) != (request.device, request.nonce):
        raise UntrustedError(
            f"renewal: expected an answer to this request of {request.device}, got one for "
            f"{answer.device}",
            code="wrong-answer",
        )
    return answer


def _session(config: AgentConfig) -> Session:
    """Metadata are asked for over HTTP, as the certificate is: the broker is for the agent."""
    sources = config.updates.sources
    urls = [*sources.mirrors, load_trust(config.state_dir).repository_url]
    transports = [HttpTransport(url) for url in urls]
    return Session(config.state_dir, limits_of(sources), transports)


def main() -> None:
    """Renew once; mistakes are one line on standard error and exit code 1."""
    parser = argparse.ArgumentParser(prog="agent.renewal")
    parser.add_argument("--config", type=Path, required=True)
    try:
        renew(load_config(parser.parse_args().config))
    except ShoalError as error:
        print(f"{error.code}: {error.sentence}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
