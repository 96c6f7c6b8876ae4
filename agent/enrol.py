"""Enrolment: a device becomes part of the fleet, by a one-time token or an operator's word.

The device makes its own key, which never leaves it, and asks for a certificate. With a token it
proves by an HMAC that it holds the secret, which never crosses the wire; the answer carries an HMAC
by the same secret, so a fake controller cannot plant its own keys. Without one it asks until an
operator has let it in, and believes the answer by the fingerprint of the controller's key that its
integrator wrote down. Every answer is sealed by that key and echoes this request's nonce.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable

import msgspec

from agent.access import BrokerAccess
from agent.config import AgentConfig
from agent.controller_http import Answer, ControllerError, post
from agent.identity import check_certificate, store_identity
from agent.introspect import device_facts
from agent.prepare import prepare_state
from agent.state_files import write_private
from agent.trust import DEVICE_KEY_NAME, TRUST_NAME, Trust, pin_root
from shoal.csr import make_request
from shoal.errors import InvalidInputError, UntrustedError
from shoal.ids import is_name
from shoal.protocol.desired import EnrolmentAnswer, EnrolmentRequest
from shoal.protocol.envelope import ENROLMENT_TYPE, Envelope, decode_envelope
from shoal.protocol.identity import Waiting, decode_waiting, proved_by_token
from shoal.signing import FileSigner, KeyVerifier, key_id

NONCE_BYTES = 24
WAITING_STATUS = 202
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.2, 300.0
RETRIED = (
    "unreachable",
    "too-many-requests",
    "too-many-pending",
    "no-root",
    "no-controller",
)
"""What passes while a device waits for an operator."""

Say = Callable[[str], None]


def enrol(config: AgentConfig, token: str) -> EnrolmentAnswer:
    """Enrol with a token; afterwards the state folder holds all that `run` needs."""
    token_id, secret = parse_token(token)
    key = load_key(config)
    request = _request(config, key)
    signed = proved_by_token(request.device, request.site, request.nonce, request.csr)
    request = msgspec.structs.replace(request, token_id=token_id, proof=_mac(secret, signed))
    found = _ask(config, request)
    if found.status == WAITING_STATUS:
        raise ControllerError("enrolment: the controller did not look at the token")
    answer = check_answer(found.body, found.mac, secret, request)
    _store(config, key, answer)
    return answer


def enrol_by_operator(
    config: AgentConfig, fingerprint: str, wait_seconds: float, say: Say
) -> EnrolmentAnswer:
    """Ask, until an operator has let this device in; believe only the controller named."""
    if len(fingerprint) != 64:
        raise InvalidInputError(
            "enrolment without a token: controller.fingerprint must say whom to believe, 64 digits "
            "as shoal-controller init prints them",
            code="no-fingerprint",
        )
    key = load_key(config)
    request = _request(config, key)
    deadline = time.monotonic() + wait_seconds
    told = ""
    while True:
        pause, state = MAX_RETRY_SECONDS, ""
        try:
            found = _ask(config, request)
            if found.status != WAITING_STATUS:
                answer = check_pinned_answer(found.body, fingerprint, request)
                _store(config, key, answer)
                return answer
            waiting = _read_waiting(found.body)
            pause = min(max(waiting.retry_seconds, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)
            state = (
                f"waiting for an operator; this device's fingerprint is {key_id(key.public_key)}"
            )
        except ControllerError as error:
            if error.code not in RETRIED:
                raise
            state, pause = error.sentence, 10.0
        if state != told:
            say(told := state)
        if time.monotonic() + pause > deadline:
            raise ControllerError(
                f"enrolment: not let in within {wait_seconds:g} s; {told}", code="not-let-in"
            )
        time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter


def load_key(config: AgentConfig) -> FileSigner:
    """This device's key; made where there is none."""
    prepare_state(config.state_dir)
    return FileSigner.load_or_create(config.state_dir / DEVICE_KEY_NAME)


def parse_token(token: str) -> tuple[str, bytes]:
    """Split `<token id>.<secret>`, or raise."""
    token_id, _, text = token.strip().partition(".")
    try:
        secret = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        secret = b""
    if not is_name(token_id) or len(secret) < 16:
        raise InvalidInputError("enrolment token: expected <id>.<secret>")
    return token_id, secret


def check_answer(
    body: bytes, mac: str, secret: bytes, request: EnrolmentRequest
) -> EnrolmentAnswer:
    """Return the answer if it comes from who made the token and is to this request."""
    envelope = decode_envelope(body)
    expected = _mac(secret, envelope.payload).hex()
    if not hmac.compare_digest(expected.encode(), mac.encode()):  # a header may hold any text
        raise UntrustedError(
            "enrolment answer: not from the controller that made the token", code="wrong-controller"
        )
    return _open(envelope, request)


def check_pinned_answer(
    body: bytes, fingerprint: str, request: EnrolmentRequest
) -> EnrolmentAnswer:
    """Return the answer if the director key of this fingerprint sealed it."""
    envelope = decode_envelope(body)
    answer = _open(envelope, request)
    pinned = [key for key in answer.director_keys if key_id(key) == fingerprint.lower()]
    if not pinned:
        raise UntrustedError(
            "enrolment answer: not from the controller whose fingerprint is configured",
            code="wrong-controller",
        )
    KeyVerifier(pinned).open(envelope, ENROLMENT_TYPE)
    return answer


def _open(envelope: Envelope, request: EnrolmentRequest) -> EnrolmentAnswer:
    try:
        answer = msgspec.json.decode(envelope.payload, type=EnrolmentAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"enrolment answer: {error}", code="bad-answer") from error
    KeyVerifier(answer.director_keys).open(envelope, ENROLMENT_TYPE)
    if answer.device != request.device:
        raise UntrustedError(
            f"enrolment answer: expected device {request.device}, got {answer.device}",
            code="wrong-device",
        )
    if answer.nonce != request.nonce:
        raise UntrustedError("enrolment answer: is to another request", code="wrong-answer")
    return answer


def _request(config: AgentConfig, key: FileSigner) -> EnrolmentRequest:
    return EnrolmentRequest(
        device=config.device,
        site=config.site,
        profile=config.profile,
        csr=make_request(config.device, key),
        nonce=os.urandom(NONCE_BYTES),
        facts=device_facts(config.profile, config.state_dir, config.sensors),
    )


def _ask(config: AgentConfig, request: EnrolmentRequest) -> Answer:
    return post(f"{config.controller_url}/api/v1/enrolments", msgspec.json.encode(request))


def _read_waiting(body: bytes) -> Waiting:
    try:
        return decode_waiting(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ControllerError(f"enrolment: {error}; is controller.url right?") from error


def _store(config: AgentConfig, key: FileSigner, answer: EnrolmentAnswer) -> None:
    """Trust goes last: without it nothing is obeyed, so a device is enrolled wholly or not."""
    check_certificate(answer.certificate, answer.fleet_ca, answer.device, key.public_key)
    access = BrokerAccess(
        host=answer.broker_host,
        port=answer.broker_port,
        device=answer.device,
        authorities=answer.broker_ca,
        not_before_ms=0,
        not_after_ms=0,
        fleet_authorities=answer.fleet_ca,
    )
    store_identity(config.state_dir, key, answer.certificate, access)
    pin_root(config.state_dir, answer.root)
    trust = Trust(answer.repository_url)
    write_private(config.state_dir / TRUST_NAME, msgspec.json.encode(trust))


def _mac(secret: bytes, data: bytes) -> bytes:
    return hmac.new(secret, data, hashlib.sha256).digest()
