"""POST to the controller from a short-lived process, with words for what may go wrong."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass

import msgspec

from shoal.errors import InvalidInputError, ShoalError
from shoal.protocol.envelope import MAX_ENVELOPE_BYTES

TIMEOUT_SECONDS = 30.0
MAC_HEADER = "x-shoal-answer-mac"

_ADVICE = {
    "bad-token": "ask for a new one: shoal enrolment-token create --device NAME",
    "token-bound": "correct device.id or device.site, or ask for a token for this device",
    "already-enrolled": "another device may have this name; else ask for a token for it",
    "admission-bound": "correct device.id or device.site, or let an operator approve it anew",
    "too-many-pending": "let an operator look at shoal device pending",
    "rejected": "if that was a mistake, ask for a token",
    "certificate-ended": "ask for a token for this name: shoal enrolment-token create",
    "renewal-refused": "is the device revoked? if not, enrol it again",
}


class ControllerError(ShoalError):
    """The controller refused, or could not be reached."""

    code = "enrolment-failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    mac: str


def post(url: str, body: bytes) -> Answer:
    """Send JSON and return the answer; every failure is a `ControllerError` of one sentence."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInputError(f"controller.url {url}: expected http:// or https://")
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        url, data=body, headers={"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            found = response.read(MAX_ENVELOPE_BYTES + 1)
            return Answer(response.status, found, response.headers.get(MAC_HEADER, ""))
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(url, error.code, error.read(65536)) from error
    except urllib.error.URLError as error:
        raise ControllerError(f"{url}: {_unreachable(error.reason)}", code="unreachable") from error
    except (OSError, http.client.HTTPException) as error:
        raise ControllerError(f"{url}: {_unreachable(error)}", code="unreachable") from error


def _refused(url: str, status: int, body: bytes) -> ControllerError:
    try:
        problem = msgspec.json.decode(body, type=dict[str, object])
        code, detail = str(problem["code"]), str(problem["detail"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        detail = f"answers {status}; is controller.url right, and is a controller behind it?"
        return ControllerError(f"{url}: {detail}", code="no-controller")
    advice = _ADVICE.get(code)
    return ControllerError(f"{detail[:500]}{f' ({advice})' if advice else ''}", code=code)


def _unreachable(reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {reason.verify_message}; is the clock right?"
    if isinstance(reason, ConnectionRefusedError):
        return "nobody listens there; does the controller run, and is controller.url right?"
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} s; is a firewall between?"
    return str(reason) or type(reason).__name__
