"""A certificate authority: issues, and says what it takes back. No clock, no database.

The name in a certificate is always the caller's, never the request's; that is what the broker takes
for the user name.

>>> now = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
>>> authority = make_authority("Shoal fleet CA", now)
>>> device = Ed25519PrivateKey.generate().public_key()
>>> issued = authority.issue_client("gw-1", device, now, timedelta(days=90))
>>> common_name(issued.certificate)
'gw-1'
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.errors import InvalidInputError

BACKDATED = timedelta(hours=1)
"""A certificate holds a little before it is issued, for clocks that are behind; at most a tenth
of its life."""
AUTHORITY_LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with what its holder sends along, PEM."""

    certificate: x509.Certificate
    chain: bytes

    @property
    def serial(self) -> str:
        """Serial number in hexadecimal, as the database keeps it."""
        return f"{self.certificate.serial_number:x}"


class Authority:
    """A key that signs certificates, with the certificates from its own up to a root."""

    def __init__(self, key: Any, chain: list[x509.Certificate]) -> None:
        self._key = key
        self._chain = chain

    @property
    def certificate(self) -> x509.Certificate:
        """Its own."""
        return self._chain[0]

    @property
    def chain_pem(self) -> bytes:
        """From its own certificate to the root: what a verifier is given."""
        return b"".join(map(_pem, self._chain))

    @property
    def key_pem(self) -> bytes:
        """The private key, for a file of mode 0600."""
        return private_pem(self._key)

    def issue_client(
        self, name: str, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
    ) -> Issued:
        """A certificate that only logs in, as `name`."""
        purpose, also = ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName(name)]
        return self._issue(name, public_key, now, lifetime, purpose, also)

    def issue_server(
        self, hosts: Iterable[str], public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
    ) -> Issued:
        """A certificate for a server reached under these names and addresses."""
        also = [_host(host) for host in dict.fromkeys(hosts)]
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        return self._issue("Shoal broker", public_key, now, lifetime, purpose, also)

    def revocations(self, serials: Iterable[str], now: datetime) -> bytes:
        """The list of certificates taken back, PEM.

        It holds as long as the authority does: a broker whose controller is away must not shut out
        a whole fleet because a list is old.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(self.certificate.not_valid_after_utc)
        )
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
            builder = builder.add_revoked_certificate(revoked.revocation_date(now).build())
        signed = builder.sign(self._key, _hash_for(self._key))
        return signed.public_bytes(serialization.Encoding.PEM)

    def _issue(
        self,
        name: str,
        public_key: Ed25519PublicKey,
        now: datetime,
        lifetime: timedelta,
        purpose: x509.ObjectIdentifier,
        also: Sequence[x509.GeneralName],
    ) -> Issued:
        end = min(now + lifetime, self.certificate.not_valid_after_utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - min(BACKDATED, lifetime / 10))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(also), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        certificate = builder.sign(self._key, _hash_for(self._key))
        above = [one for one in self._chain if one.issuer != one.subject]  # the root is known
        return Issued(certificate, b"".join(map(_pem, [certificate, *above])))


def make_authority(name: str, now: datetime) -> Authority:
    """A new authority that signs itself and may have none below it."""
    key = Ed25519PrivateKey.generate()
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    return Authority(key, [certificate])


def read_authority(what: str, key: bytes, chain: bytes) -> Authority:
    """An authority out of PEM files, its own certificate first."""
    try:
        private = serialization.load_pem_private_key(key, password=None)
        certificates = x509.load_pem_x509_certificates(chain)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{what}: {error}", code="authority-unreadable") from error
    if private.public_key() != certificates[0].public_key():
        raise InvalidInputError(
            f"{what}: the first certificate is not of this key", code="authority-unreadable"
        )
    for lower, upper in pairwise(certificates):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise InvalidInputError(
                f"{what}: {lower.subject.rfc4514_string()} is not signed by the next certificate",
                code="authority-unreadable",
            ) from error
    return Authority(private, certificates)


def common_name(certificate: x509.Certificate) -> str:
    """The name a broker reads out of it."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def private_pem(key: Any) -> bytes:
    """A private key as PKCS #8, PEM, not encrypted."""
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _hash_for(key: Any) -> hashes.SHA256 | None:
    """Ed25519 brings its own; an authority of a site may be EC or RSA."""
    return None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
