"""The two authorities of a controller, their files, and the logins they make.

`keys/` holds them, mode 0600; the fleet CA may be an intermediate of the site's own, kept where
`[enrolment] ca_certificate` and `ca_key` say. `logins/` holds the certificates of our processes,
made anew at every start, so that they need no renewal of their own.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.config import Settings
from controller.identity.authority import (
    AUTHORITY_LIFETIME,
    Authority,
    make_authority,
    private_pem,
    read_authority,
)
from controller.identity.logins import client_context, login_file
from controller.state_files import write_private
from shoal.errors import InvalidInputError

STAND_IN_LIFETIME = timedelta(minutes=5)


class Identities:
    """Both authorities, and who they vouch for."""

    def __init__(self, fleet: Authority, broker: Authority, settings: Settings) -> None:
        self.fleet = fleet
        """Signs devices."""
        self.broker = broker
        """Signs the broker and our own processes."""
        self._settings = settings

    def server_pair(self, hosts: Iterable[str]) -> tuple[bytes, bytes]:
        """Certificate and private key for a broker reached under these names, PEM."""
        key = Ed25519PrivateKey.generate()
        names = [*hosts, "localhost", "127.0.0.1"]
        issued = self.broker.issue_server(
            names, key.public_key(), datetime.now(UTC), AUTHORITY_LIFETIME
        )
        return issued.chain, private_pem(key)

    def device_authority(self) -> bytes:
        """Whom the broker believes about devices, PEM."""
        return self.fleet.chain_pem

    def controller_authority(self) -> bytes:
        """Whom the broker believes about our processes, and devices about the broker, PEM."""
        return self.broker.chain_pem

    def revocations(self, serials: Iterable[str]) -> bytes:
        """The list of device certificates taken back, PEM."""
        return self.fleet.revocations(serials, datetime.now(UTC))

    def make_login(self, account: str) -> None:
        """Write the login of one of our processes."""
        path = login_file(self._settings, account)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        write_private(path, self._pair(self.broker, account, AUTHORITY_LIFETIME))

    def login(self, account: str) -> ssl.SSLContext:
        """TLS as one of our processes, for this process only."""
        return self._context(self._pair(self.broker, account, AUTHORITY_LIFETIME))

    def stand_in(self, device: str) -> ssl.SSLContext:
        """TLS as a device, for a moment: what takes a revoked one's session from it."""
        return self._context(self._pair(self.fleet, device, STAND_IN_LIFETIME))

    def _pair(self, authority: Authority, name: str, lifetime: timedelta) -> bytes:
        key = Ed25519PrivateKey.generate()
        issued = authority.issue_client(name, key.public_key(), datetime.now(UTC), lifetime)
        return private_pem(key) + issued.chain

    def _context(self, pair: bytes) -> ssl.SSLContext:
        # OpenSSL takes a key from a file only; it is gone before anything is sent.
        handle, name = tempfile.mkstemp(dir=self._settings.data_dir)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pair)
            return client_context(broker_authorities(self._settings), Path(name))
        finally:
            Path(name).unlink()


def broker_authorities(settings: Settings) -> str:
    """PEM of whom devices and our processes believe about the broker."""
    path = settings.broker_ca_file
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"broker CA {path}: {error}", code="authority-unreadable"
        ) from error


def load_identities(settings: Settings) -> Identities:
    """Read what `make_missing` made."""
    return Identities(
        _load("fleet CA", settings.fleet_ca_key, settings.fleet_ca),
        _load("broker CA", settings.broker_ca_key, settings.broker_ca),
        settings,
    )


def make_missing(settings: Settings) -> list[str]:
    """Make the authorities that are not there; those of a site are never made. Returns which."""
    now, made = datetime.now(UTC), []
    pairs = [("broker CA", settings.broker_ca_key, settings.broker_ca)]
    if not settings.enrolment.ca_key:
        pairs.append(("fleet CA", settings.fleet_ca_key, settings.fleet_ca))
    for what, key, certificate in pairs:
        if not key.exists():
            authority = make_authority(f"Shoal {what}", now)
            key.parent.mkdir(parents=True, exist_ok=True)
            write_private(certificate, authority.chain_pem)
            write_private(key, authority.key_pem)
            made.append(what)
    return made


def _load(what: str, key: Path, certificate: Path) -> Authority:
    try:
        return read_authority(f"{what} {certificate}", key.read_bytes(), certificate.read_bytes())
    except OSError as error:
        raise InvalidInputError(
            f"{what}: {error}; shoal-controller init makes it", code="authority-unreadable"
        ) from error
