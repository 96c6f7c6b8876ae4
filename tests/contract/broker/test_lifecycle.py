"""Starting, accounts at run time, and what is left after a SIGKILL."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import subprocess
import sys
import time

import pytest

from controller.broker import INGEST_ACCOUNT, BrokerError, EmbeddedBroker

pytestmark = pytest.mark.contract

STATE = "shoal/v1/jfk/gw-1/state"
WINDOW = "shoal/v1/jfk/gw-1/models/weather/window"
PASSWORD = "unused-with-certificates"


async def _gone(pid: int) -> None:
    """Wait until every thread of a process has ended; its main thread may end first."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = await asyncio.to_thread(select.select, [handle], [], [], 10)
        assert ended, f"process {pid} still runs"
    finally:
        os.close(handle)


async def test_lets_new_devices_in_and_revoked_ones_out_and_keeps_the_other_sessions(
    broker, hold, connect
):
    held = hold("gw-2")
    ingest, stays = await connect(INGEST_ACCOUNT), await connect("gw-1")
    removed = await connect("gw-2", context=held.context)
    assert await ingest.subscribe("shoal/v1/+/+/state")
    devices = dict.fromkeys(("gw-1", "gw-9"), PASSWORD)

    await broker.set_accounts(devices, {INGEST_ACCOUNT: PASSWORD}, [held.serial])
    await broker.cut_off("gw-2")

    fresh = await connect("gw-9")
    await fresh.publish("shoal/v1/jfk/gw-9/state", b"new")
    await stays.publish(STATE, b"old")
    assert {(await ingest.receive()).payload, (await ingest.receive()).payload} == {b"new", b"old"}
    await removed.disconnected()
    assert stays.disconnections.empty()
    assert ingest.disconnections.empty()
    await asyncio.to_thread(removed.close)
    with pytest.raises(PermissionError):
        await connect("gw-2", context=held.context)


async def test_many_changes_of_accounts_in_a_row_all_hold(broker, connect):
    devices = {}
    for number in range(20):
        devices[f"new-{number}"] = PASSWORD
        await broker.set_accounts(devices, {})
        await connect(f"new-{number}")


async def test_keeps_sessions_and_retained_messages_through_a_stop(broker, connect):
    ingest = await connect(INGEST_ACCOUNT, clean=False)
    assert await ingest.subscribe("shoal/v1/+/+/models/+/window", "shoal/v1/+/+/events")
    ingest.close()
    device = await connect("gw-1")
    await device.publish(STATE, b"kept", retain=True)
    await device.publish(WINDOW, b"queued")
    device.close()

    await broker.stop()
    assert broker.pid is None
    await broker.start()

    again = await connect(INGEST_ACCOUNT, clean=False)
    assert (await again.receive()).payload == b"queued"
    assert await again.subscribe("shoal/v1/+/+/state")
    assert (await again.receive()).payload == b"kept"


async def test_starts_again_by_itself_after_sigkill_and_clients_come_back(broker, connect):
    watch = asyncio.create_task(broker.watch())
    device, ingest = await connect("gw-1"), await connect(INGEST_ACCOUNT)
    first = broker.pid

    os.kill(first, signal.SIGKILL)

    await device.disconnected()
    await device.connected()
    await ingest.connected()
    assert broker.pid not in (None, first)
    assert await ingest.subscribe("shoal/v1/+/+/state")
    await device.publish(STATE, b"after")
    assert (await ingest.receive()).payload == b"after"
    await broker.stop()
    await asyncio.wait_for(watch, 10)


@pytest.mark.parametrize("broker_kind", ["mosquitto"])
async def test_mosquitto_forgets_over_sigkill_what_it_had_not_saved_yet(broker, connect):
    """Why a device keeps a row until the controller says it is committed."""
    ingest = await connect(INGEST_ACCOUNT, clean=False)
    assert await ingest.subscribe("shoal/v1/+/+/models/+/window")
    ingest.close()
    await (await connect("gw-1")).publish(WINDOW, b"lost")

    pid = broker.pid
    os.kill(pid, signal.SIGKILL)
    await _gone(pid)
    await broker.start()

    again = await connect(INGEST_ACCOUNT, clean=False)
    with pytest.raises(TimeoutError):
        await again.receive(0.5)


@pytest.mark.parametrize("broker_kind", ["nats"])
async def test_nats_keeps_acknowledged_messages_over_sigkill(broker, connect):
    ingest = await connect(INGEST_ACCOUNT, clean=False)
    assert await ingest.subscribe("shoal/v1/+/+/models/+/window")
    ingest.close()
    device = await connect("gw-1")
    for number in range(100):
        await device.publish(WINDOW, b"%d" % number)

    pid = broker.pid
    os.kill(pid, signal.SIGKILL)
    await _gone(pid)
    await broker.start()

    again = await connect(INGEST_ACCOUNT, clean=False)
    assert len({(await again.receive()).payload for _ in range(100)}) == 100


async def test_dies_with_the_process_that_started_it(broker_kind, tmp_path):
    program = f"""
import asyncio, sys
from pathlib import Path
from controller.broker import EmbeddedBroker
async def main():
    broker = EmbeddedBroker({broker_kind!r}, Path(sys.argv[1]))
    await broker.start()
    print(broker.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", program, str(tmp_path / "broker")],
        stdout=subprocess.PIPE,
    )
    with parent:
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        parent.kill()
    await _gone(pid)


async def test_says_what_the_broker_said_when_its_port_is_taken(broker, tmp_path):
    second = EmbeddedBroker(broker.kind, tmp_path / "second", port=broker.port)
    started = time.monotonic()
    with pytest.raises(
        BrokerError, match=r"did not start: exit code 1; .*(?i:address already in use)"
    ) as got:
        await second.start()
    assert str(broker.port) in got.value.sentence
    assert second.pid is None
    assert time.monotonic() - started < 15


async def test_keeps_its_files_private(broker, tmp_path):
    folder = tmp_path / "broker"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    loose = [
        path.name
        for path in folder.iterdir()
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert loose == []


async def test_listens_on_loopback_only(broker):
    listening = await asyncio.to_thread(
        subprocess.run, ["ss", "-ltnpH"], capture_output=True, text=True, check=True
    )
    mine = [
        line.split()[3] for line in listening.stdout.splitlines() if f"pid={broker.pid}," in line
    ]
    assert mine
    assert all(address.startswith("127.0.0.1:") for address in mine)
