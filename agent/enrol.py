"""Enrolment: a device with a one-time token becomes part of the fleet.

The device makes its own key, which never leaves it, and proves with an HMAC that it holds the
token's secret; the secret never crosses the wire. The answer is sealed by the director key and
carries an HMAC by the same secret, so a fake controller cannot plant its own keys.
"""

from __future__ import annotations

import hashlib
import hmac
import urllib.error
import urllib.request
from base64 import urlsafe_b64decode

import msgspec

from agent.config import AgentConfig
from agent.introspect import device_facts
from agent.prepare import prepare_state
from agent.state_files import write_private
from agent.trust import BROKER_NAME, DEVICE_KEY_NAME, TRUST_NAME, BrokerAccess, Trust
from shoal.errors import InvalidInputError, ShoalError, UntrustedError
from shoal.ids import is_name
from shoal.protocol.desired import EnrolmentAnswer, EnrolmentRequest
from shoal.protocol.envelope import ENROLMENT_TYPE, MAX_ENVELOPE_BYTES, decode_envelope
from shoal.signing import FileSigner, KeyVerifier

TIMEOUT_SECONDS = 30.0
MAC_HEADER = "x-shoal-answer-mac"


class EnrolmentError(ShoalError):
    """The controller refused, or could not be reached."""

    code = "enrolment-failed"


def enrol(config: AgentConfig, token: str) -> EnrolmentAnswer:
    """Enrol this device; afterwards the state folder holds all that `run` needs."""
    token_id, secret = parse_token(token)
    prepare_state(config.state_dir)
    key = FileSigner.load_or_create(config.state_dir / DEVICE_KEY_NAME)
    request = EnrolmentRequest(
        token_id=token_id,
        device=config.device,
        site=config.site,
        profile=config.profile,
        public_key=key.public_key,
        proof=_mac(secret, config.device.encode() + b"|" + key.public_key),
        facts=device_facts(config.profile, config.state_dir, config.sensors),
    )
    body, mac = _post(f"{config.controller_url}/api/v1/enrolments", msgspec.json.encode(request))
    answer = check_answer(body, mac, secret, config.device)
    trust = Trust(
        answer.director_keys,
        answer.release_keys,
        answer.release_threshold,
        answer.repository_url,
    )
    access = BrokerAccess(
        answer.broker_host, answer.broker_port, answer.broker_username, answer.broker_password
    )
    write_private(config.state_dir / BROKER_NAME, msgspec.json.encode(access))
    write_private(config.state_dir / TRUST_NAME, msgspec.json.encode(trust))
    return answer


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


def check_answer(body: bytes, mac: str, secret: bytes, device: str) -> EnrolmentAnswer:
    """Return the answer if it comes from who made the token and is for this device."""
    envelope = decode_envelope(body)
    expected = _mac(secret, envelope.payload).hex()
    if not hmac.compare_digest(expected.encode(), mac.encode()):  # a header may hold any text
        raise UntrustedError(
            "enrolment answer: not from the controller that made the token", code="wrong-controller"
        )
    try:
        answer = msgspec.json.decode(envelope.payload, type=EnrolmentAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedError(f"enrolment answer: {error}", code="bad-answer") from error
    KeyVerifier(answer.director_keys).open(envelope, ENROLMENT_TYPE)
    if answer.device != device:
        raise UntrustedError(
            f"enrolment answer: expected device {device}, got {answer.device}", code="wrong-device"
        )
    return answer


def _post(url: str, body: bytes) -> tuple[bytes, str]:
    if not url.startswith(("http://", "https://")):
        raise InvalidInputError(f"controller.url {url}: expected http:// or https://")
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        url, data=body, headers={"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            return response.read(MAX_ENVELOPE_BYTES + 1), response.headers.get(MAC_HEADER, "")
    except urllib.error.HTTPError as error:
        problem = _problem(error.read(65536))
        raise EnrolmentError(f"enrolment: {url}: {error.code}: {problem}") from error
    except OSError as error:
        raise EnrolmentError(f"enrolment: {url}: {error}") from error


def _problem(body: bytes) -> str:
    try:
        found = msgspec.json.decode(body)
        return str(found.get("detail") or found.get("title"))
    except (msgspec.DecodeError, AttributeError):
        return body[:200].decode("utf-8", "replace")


def _mac(secret: bytes, data: bytes) -> bytes:
    return hmac.new(secret, data, hashlib.sha256).digest()
