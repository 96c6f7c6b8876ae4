"""Fixtures that every test may use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import settings

from controller.identity.authority import Authority, private_pem, read_authority

settings.register_profile("shared", deadline=None)  # a machine that does other things too
settings.load_profile("shared")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets and models kept beside the project, read in place."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}: SKAB, NAB and MLPerf Tiny are tested there")
    return folder


@pytest.fixture(scope="session")
def site_authorities() -> tuple[Authority, Authority]:
    """A root as a site may have one, and an intermediate with an EC key below it."""
    root_key, key = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    root = _authority_certificate("Site root", root_key, "Site root", root_key)
    middle = _authority_certificate("Site devices", key, "Site root", root_key)
    pem = [one.public_bytes(serialization.Encoding.PEM) for one in (middle, root)]
    return (
        read_authority("site root", private_pem(root_key), pem[1]),
        read_authority("fleet CA", private_pem(key), b"".join(pem)),
    )


def _authority_certificate(name: str, key: Any, above: str, above_key: Any) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, above)]
    return (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=100))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(above_key, None)
    )
