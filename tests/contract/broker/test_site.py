"""A broker that the site runs: TLS from our configuration text, accounts from our files."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import signal
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.broker import (
    INGEST_ACCOUNT,
    KINDS,
    Accounts,
    BrokerError,
    BrokerSettings,
    ExternalBroker,
    TlsFiles,
    free_port,
)
from controller.broker.handshake import ACCEPTED, UNREACHABLE, connect_packet, log_in
from controller.broker.kinds import locate
from controller.broker.process import start_child

pytestmark = pytest.mark.contract

PASSWORD = "p" * 32
NOT_AUTHORISED = (4, 5)


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:
    """A certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@contextlib.asynccontextmanager
async def _running(kind: str, settings: BrokerSettings, accounts: Accounts):
    """Start a broker from the texts alone, as a site would, and wait until its port is open."""
    for name, text in KINDS[kind].files(settings, accounts, ("controller_probe", "r" * 32)).items():
        (settings.folder / name).write_text(text)
    command = KINDS[kind].command(locate(kind), settings.folder)
    child = start_child(command, settings.folder / "broker.log")
    try:
        async with asyncio.timeout(15):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(settings.host, settings.port)
                    writer.close()
                    break
                await asyncio.sleep(0.02)
        yield child
    finally:
        await child.stop(10)


async def test_takes_logins_over_tls_only(broker_kind, tls, tmp_path):
    settings = BrokerSettings(tmp_path, port=free_port(), run_as="root", tls=tls)
    accounts = Accounts({"gw-1": PASSWORD})
    context = ssl.create_default_context(cafile=str(tls.certificate))

    async with _running(broker_kind, settings, accounts):
        reader, writer = await asyncio.open_connection(
            settings.host, settings.port, ssl=context, server_hostname="localhost"
        )
        writer.write(connect_packet("gw-1", PASSWORD))
        answer = await asyncio.wait_for(reader.readexactly(4), 10)
        writer.close()
        assert answer == b"\x20\x02\x00\x00"

        assert await log_in(settings.host, settings.port, "gw-1", PASSWORD, 5.0) == UNREACHABLE


async def test_a_site_s_mosquitto_takes_accounts_from_our_files(tmp_path):
    settings = BrokerSettings(tmp_path, port=free_port(), run_as="root")
    external = ExternalBroker(settings.host, settings.port, tmp_path)

    async with _running("mosquitto", settings, Accounts()) as child:
        assert await log_in(settings.host, settings.port, "gw-1", PASSWORD, 5.0) in NOT_AUTHORISED
        await external.set_accounts({"gw-1": PASSWORD}, {INGEST_ACCOUNT: "q" * 32})
        child.send(signal.SIGHUP)  # what the site's service manager does when a file changes
        for _ in range(500):
            if await log_in(settings.host, settings.port, "gw-1", PASSWORD, 5.0) == ACCEPTED:
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("the new account was not taken within 10 s")
        got = await log_in(settings.host, settings.port, INGEST_ACCOUNT, "q" * 32, 5.0)
        assert got == ACCEPTED


async def test_files_for_a_site_are_readable_by_its_group_and_nobody_else(tmp_path):
    await ExternalBroker("broker.example", 8883, tmp_path).set_accounts({"gw-1": PASSWORD}, {})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) == {"mosquitto.passwords", "mosquitto.acl"}
    assert not any(mode & 0o027 for mode in modes.values())


async def test_names_the_folder_that_it_cannot_write(tmp_path):
    with pytest.raises(BrokerError, match="absent"):
        await ExternalBroker("broker.example", 8883, tmp_path / "absent").set_accounts({}, {})


async def test_leaves_the_accounts_of_another_broker_alone(tmp_path):
    external = ExternalBroker("broker.example", 8883)
    await external.start()
    await external.set_accounts({"gw-1": PASSWORD}, {})
    with pytest.raises(TimeoutError):  # somebody else's broker is watched by them: it never ends
        async with asyncio.timeout(0.05):
            await external.watch()
    await external.stop()
    assert (external.kind, external.pid) == ("external", None)
