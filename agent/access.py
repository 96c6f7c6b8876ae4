"""How this device reaches the broker: where it is, and by which certificate.

Enrolment and each renewal leave two files, each replaced in one step: `identity.pem` holds key and
certificate *together*, so there is no moment at which they do not fit, and `broker.json` the rest.
Light: the resident agent reads both with `ssl` alone.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec
from msgspec import Struct

from shoal.errors import InvalidInputError

BROKER_NAME = "broker.json"
IDENTITY_NAME = "identity.pem"

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which Python has no name for


class BrokerAccess(Struct, frozen=True, kw_only=True):
    """Kept apart from trust: a wrong address must not look like it."""

    host: str
    port: int
    device: str
    authorities: str
    """PEM: who vouches for the broker. Nobody else does: the system's list is not asked."""
    not_before_ms: int
    not_after_ms: int
    """When the certificate begins and ends to hold."""
    fleet_authorities: str
    """PEM: who vouches for devices; a certificate by somebody else is not stored."""

    def renew_ms(self, share: float = 2 / 3) -> int:
        """When so much of the certificate's life is over."""
        return self.not_before_ms + int(share * (self.not_after_ms - self.not_before_ms))


def load_broker(state_dir: Path) -> BrokerAccess:
    """Read where the broker is, or raise saying that the device must enrol."""
    path = state_dir / BROKER_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=BrokerAccess)
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidInputError(
            f"{path}: {error}; run shoal-agent enrol first", code="not-enrolled"
        ) from error


def broker_context(
    state_dir: Path, access: BrokerAccess, *, check_time: bool = True
) -> ssl.SSLContext:
    """TLS 1.2 or later as this device, to the broker that enrolment named.

    Without `check_time` a certificate may have ended or not begun: for a device that knows its own
    clock to be behind. It is still only our own authority's.
    """
    path = state_dir / IDENTITY_NAME
    try:
        context = ssl.create_default_context(cadata=access.authorities)
        context.load_cert_chain(path)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise InvalidInputError(
            f"{path}: {error}; run shoal-agent enrol again", code="not-enrolled"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not check_time:
        context.verify_flags |= _NO_CHECK_TIME
    return context
