"""What a broker with TLS needs of the controller's authorities, and the files made of it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Protocol

from controller.broker.settings import TLS_NAMES


class Identities(Protocol):
    """Vouches for the broker, for devices and for our own processes. All texts are PEM."""

    def server_pair(self, hosts: Iterable[str]) -> tuple[bytes, bytes]:
        """Certificate and private key of a broker reached under these names."""
        ...

    def device_authority(self) -> bytes: ...
    def controller_authority(self) -> bytes: ...
    def revocations(self, serials: Iterable[str]) -> bytes: ...
    def login(self, account: str) -> ssl.SSLContext: ...
    def stand_in(self, device: str) -> ssl.SSLContext: ...


def server_files(identities: Identities, hosts: Iterable[str]) -> dict[str, str]:
    """All files of `TlsFiles` but the revocations, by name."""
    certificate, key = identities.server_pair(hosts)
    devices, controllers = identities.device_authority(), identities.controller_authority()
    texts = (certificate, key, devices, controllers, devices + controllers)
    return {name: text.decode() for name, text in zip(TLS_NAMES, texts, strict=False)}


def revocation_file(identities: Identities, serials: Iterable[str]) -> dict[str, str]:
    """The list of certificates taken back, by name."""
    return {TLS_NAMES[-1]: identities.revocations(serials).decode()}
