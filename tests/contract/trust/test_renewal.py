"""Renewal believes the director of the verified targets, also after its key was rotated.

The device's process is the real one; a controller answers it that seals with the key it is given.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from agent.access import BrokerAccess, load_broker
from agent.identity import store_identity
from agent.trust import DEVICE_KEY_NAME
from shoal.csr import read_request
from shoal.protocol.envelope import decode_envelope, encode_envelope
from shoal.protocol.identity import ANSWER_TYPE, RenewalAnswer, RenewalRequest
from shoal.signing import FileSigner, PublicKey, seal
from tests.contract.trust.conftest import DEVICE, Site, TrustingDevice
from tests.contract.trust.owners import Owners


class Authority:
    """A fleet's authority."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet")])
        self.pem = self._issue("fleet", self._key.public_key().public_bytes_raw(), 9)

    def issue(self, key: PublicKey, days: int) -> str:
        """The device's certificate."""
        return self._issue(DEVICE, key, days)

    def _issue(self, name: str, key: PublicKey, days: int) -> str:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(Ed25519PublicKey.from_public_bytes(key))
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=days))
        )
        return builder.sign(self._key, None).public_bytes(Encoding.PEM).decode()


class Controller:
    """Answers renewals, sealed by `signer`."""

    def __init__(self, signer: FileSigner, authority: Authority) -> None:
        self.signer = signer
        controller = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = controller.answer(body, authority)
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, body: bytes, authority: Authority) -> bytes:
        """What an honest controller says, by whatever key."""
        asked = msgspec.json.decode(decode_envelope(body).payload, type=RenewalRequest)
        answer = RenewalAnswer(
            device=asked.device,
            nonce=asked.nonce,
            certificate=authority.issue(read_request(asked.csr), days=8),
            broker_host="moved",
            broker_port=8884,
            broker_ca=authority.pem,
        )
        return encode_envelope(seal(msgspec.json.encode(answer), ANSWER_TYPE, self.signer))

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class Renewing:
    """A device with a certificate, and its real renewal process."""

    def __init__(self, folder: Path, device: TrustingDevice, url: str, authority: Authority):
        self.state = device.folder
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'[device]\nid = "{DEVICE}"\nsite = "plant"\nstate_dir = "{self.state}"\n'
            f'[controller]\nurl = "{url}"\n'
        )
        key = FileSigner.load_or_create(self.state / DEVICE_KEY_NAME)
        access = BrokerAccess(
            host="first", port=8883, device=DEVICE, authorities=authority.pem,
            not_before_ms=0, not_after_ms=0, fleet_authorities=authority.pem,
        )  # fmt: skip
        store_identity(self.state, key, authority.issue(key.public_key, days=1), access)

    async def renew(self) -> tuple[int, str]:
        """Exit code, and the code of the refusal."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent.renewal", "--config", str(self.config),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, words = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, words.decode().partition(":")[0]

    @property
    def host(self) -> str:
        """Where the broker is, as the last answer that was believed said."""
        return load_broker(self.state).host


@pytest.fixture
def authority() -> Authority:
    """Of this fleet."""
    return Authority()


@pytest.fixture
def controller(director: FileSigner, authority: Authority) -> Iterator[Controller]:
    """Signs with the first director key."""
    controller = Controller(director, authority)
    yield controller
    controller.close()


@pytest.fixture
def renewing(
    tmp_path: Path, device: TrustingDevice, controller: Controller, authority: Authority
) -> Renewing:
    """A device whose certificate is to be renewed."""
    return Renewing(tmp_path, device, controller.url, authority)


async def test_a_certificate_is_renewed_by_a_rotated_director_and_the_old_key_is_refused(
    renewing: Renewing, controller: Controller, owners: Owners, director: FileSigner
) -> None:
    assert await renewing.renew() == (0, "")
    assert renewing.host == "moved"

    new = FileSigner.generate()
    owners.set_director([new.public_key])
    owners.publish()
    controller.signer = new
    before = (renewing.state / "identity.pem").read_bytes()
    assert await renewing.renew() == (0, "")
    after = (renewing.state / "identity.pem").read_bytes()
    assert after != before

    controller.signer = director
    assert await renewing.renew() == (1, "unknown-key")
    assert (renewing.state / "identity.pem").read_bytes() == after


async def test_a_key_that_no_targets_name_renews_nothing(
    renewing: Renewing, controller: Controller
) -> None:
    before = (renewing.state / "identity.pem").read_bytes()
    controller.signer = FileSigner.generate()
    assert await renewing.renew() == (1, "unknown-key")
    assert (renewing.state / "identity.pem").read_bytes() == before
    assert renewing.host == "first"


async def test_a_certificate_is_renewed_from_metadata_in_hand_while_the_repository_is_silent(
    renewing: Renewing, device: TrustingDevice, site: Site
) -> None:
    await device.verify(device.desired())
    site.close()
    assert await renewing.renew() == (0, "")


async def test_without_the_pinned_root_nothing_is_asked_for(renewing: Renewing) -> None:
    (renewing.state / "trust" / "root.json").unlink()
    assert await renewing.renew() == (1, "no-root")
    assert renewing.host == "first"
