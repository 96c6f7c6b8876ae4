"""Storing what the controller answered about who we are. Only for short-lived processes.

A certificate is stored when it is ours in every respect: our name, our key, our fleet's authority.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

from agent.access import BROKER_NAME, IDENTITY_NAME, BrokerAccess
from agent.state_files import write_private
from shoal.errors import UntrustedError
from shoal.signing import FileSigner, PublicKey


def store_identity(state_dir: Path, key: FileSigner, chain: str, access: BrokerAccess) -> None:
    """Replace certificate and access; a kill between the two leaves a pair that works.

    The certificate goes first: with the old dates beside it, it is only renewed once more.
    """
    certificate = check_certificate(chain, access.fleet_authorities, access.device, key.public_key)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    access = msgspec.structs.replace(
        access,
        not_before_ms=int(begin.timestamp() * 1000),
        not_after_ms=int(end.timestamp() * 1000),
    )
    write_private(state_dir / IDENTITY_NAME, key.private_pem() + chain.encode())
    write_private(state_dir / BROKER_NAME, msgspec.json.encode(access))


def check_certificate(
    chain: str, authorities: str, device: str, key: PublicKey
) -> x509.Certificate:
    """Return our certificate out of a chain, or raise `UntrustedError`."""
    try:
        certificate, *above = x509.load_pem_x509_certificates(chain.encode())
        issuer = (above or x509.load_pem_x509_certificates(authorities.encode()))[0]
        certificate.verify_directly_issued_by(issuer)
        for lower in above:
            _check_issued(lower, authorities)
        holder = certificate.public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        raise UntrustedError(
            f"certificate of {device}: not issued by the fleet's authority ({error!r})",
            code="bad-certificate",
        ) from error
    names = [
        str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    if names != [device]:
        raise UntrustedError(
            f"certificate: expected the name {device}, got {', '.join(names)[:80]!r}",
            code="bad-certificate",
        )
    if not isinstance(holder, Ed25519PublicKey) or holder.public_bytes_raw() != key:
        raise UntrustedError(
            f"certificate of {device}: is for another key than this device's",
            code="bad-certificate",
        )
    return certificate


def _check_issued(lower: x509.Certificate, authorities: str) -> None:
    """One between ours and the root must be pinned itself."""
    if lower not in x509.load_pem_x509_certificates(authorities.encode()):
        raise ValueError("an authority in the chain was not named at enrolment")
