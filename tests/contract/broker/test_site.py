"""A mosquitto that the site runs, from our files alone; and nobody without a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import stat

import pytest

from controller.broker import (
    INGEST_ACCOUNT,
    KINDS,
    BrokerError,
    BrokerSettings,
    ExternalBroker,
    TlsFiles,
    free_port,
    mosquitto,
)
from controller.broker.handshake import ACCEPTED, UNREACHABLE, Login, log_in
from controller.broker.identity import server_files
from controller.broker.kinds import locate
from controller.broker.process import start_child

pytestmark = pytest.mark.contract

UNUSED = "unused-with-certificates"


async def _eventually(holds):
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - another process changes what is looked at
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def _site(folder, identities):
    """mosquitto as `shoal-controller broker-config` and `accounts_folder` set it up."""
    settings = BrokerSettings(
        folder,
        port=free_port(),
        controller_port=free_port(),
        run_as="root",
        tls=TlsFiles.within(folder),
        probe=False,
    )
    broker = ExternalBroker(
        settings.host,
        settings.port,
        folder,
        controller_port=settings.controller_port,
        identities=identities,
    )
    await broker.set_accounts({"gw-1": UNUSED}, {INGEST_ACCOUNT: UNUSED})
    for name, text in server_files(identities, [settings.host]).items():
        (folder / name).write_text(text)
    (folder / mosquitto.CONF).write_text(mosquitto.conf(settings))
    command = KINDS["mosquitto"].command(locate("mosquitto"), folder)
    child = start_child(command, folder / "broker.log")
    login = Login(INGEST_ACCOUNT, context=identities.login(INGEST_ACCOUNT))

    async def up():
        port = settings.controller_port
        return await log_in(settings.host, port, login, 5.0) == ACCEPTED

    try:
        await _eventually(up)
        yield broker, child
    finally:
        await broker.stop()
        await child.stop(10)


async def test_nobody_speaks_plainly_to_the_broker(broker):
    for port in {broker.port, broker.controller_port}:
        for login in (Login("gw-1"), Login("gw-1", "p" * 32)):
            assert await log_in(broker.host, port, login, 5.0) == UNREACHABLE


async def test_a_site_s_mosquitto_runs_on_our_files_alone_and_shuts_a_revoked_device_out(
    tmp_path, identities, hold
):
    folder = tmp_path / "site"
    folder.mkdir()
    held, other = hold("gw-1"), hold("gw-2")
    login = Login("gw-1", context=held.context)

    async with _site(folder, identities) as (site, child):
        assert await log_in(site.host, site.port, login, 5.0) == ACCEPTED

        await site.set_accounts({}, {INGEST_ACCOUNT: UNUSED}, [held.serial])
        child.send(signal.SIGHUP)  # what the site's service manager does when a file changes

        async def shut_out():
            return await log_in(site.host, site.port, login, 5.0) == UNREACHABLE

        await _eventually(shut_out)
        other_login = Login("gw-2", context=other.context)
        assert await log_in(site.host, site.port, other_login, 5.0) == ACCEPTED


async def test_a_live_session_at_a_site_s_broker_is_taken_over(tmp_path, identities, hold):
    folder = tmp_path / "site"
    folder.mkdir()
    held = hold("gw-1")

    async with _site(folder, identities) as (site, child):
        reader, writer = await asyncio.open_connection(site.host, site.port, ssl=held.context)
        writer.write(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04gw-1")
        assert await asyncio.wait_for(reader.readexactly(4), 10) == b"\x20\x02\x00\x00"

        await site.set_accounts({}, {INGEST_ACCOUNT: UNUSED}, [held.serial])
        child.send(signal.SIGHUP)
        await site.cut_off("gw-1")

        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(16), 10) == b""
        writer.close()


async def test_files_for_a_site_are_readable_by_its_group_and_nobody_else(tmp_path, identities):
    folder = tmp_path / "site"
    folder.mkdir()
    await ExternalBroker("broker.example", 8883, folder, identities=identities).set_accounts(
        {"gw-1": UNUSED}, {}
    )
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes) == {"revoked.pem", "mosquitto.acl"}
    assert not any(mode & 0o027 for mode in modes.values())


async def test_names_the_folder_that_it_cannot_write(tmp_path):
    with pytest.raises(BrokerError, match="absent"):
        await ExternalBroker("broker.example", 8883, tmp_path / "absent").set_accounts({}, {})


async def test_leaves_the_accounts_of_another_broker_alone():
    external = ExternalBroker("broker.example", 8883)
    await external.start()
    await external.set_accounts({"gw-1": UNUSED}, {})
    await external.cut_off("gw-1")
    with pytest.raises(TimeoutError):  # somebody else's broker is watched by them: it never ends
        async with asyncio.timeout(0.05):
            await external.watch()
    await external.stop()
    assert (external.kind, external.pid) == ("external", None)
