"""A device that reaches only the broker: the same updates in blocks, through a real broker."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from agent.blocks import Blocks
from agent.updater.client import ask_updater
from agent.updater.wire import FetchRequest, RefreshRequest, Sources, Staged
from controller.blocks import BlockServer
from controller.broker import DIRECTOR_ACCOUNT
from shoal.errors import ShoalError
from shoal.protocol.blocks import BLOCK_BYTES
from shoal.protocol.topics import fetch_filter, parse_topic
from tests.contract.trust.conftest import refusal, size_of

pytestmark = pytest.mark.contract

FETCH = "shoal/v1/lab/gw-1/fetch"
BY_BROKER = Sources(transport="mqtt", grace_seconds=30.0)


class Path:
    """From a device to the controller through the broker; `lose` says which blocks get lost."""

    def __init__(self, device, controller, www):
        self.lose = lambda number: False
        self.sent = 0
        self.server = BlockServer(lambda path: _open(www, path), self._send)
        self.blocks = Blocks(self._ask)
        self._device, self._controller = device, controller
        device_loop = asyncio.get_running_loop()
        controller.on_message = lambda _c, _u, one: self.server.take(one.topic, one.payload)
        device.on_message = lambda _c, _u, one: device_loop.call_soon_threadsafe(
            self.blocks.arrived, parse_topic(one.topic).transfer, one.payload
        )

    def _ask(self, payload):
        self._device.publish(FETCH, payload, qos=0)
        return True

    def _send(self, topic, payload):
        self.sent += 1
        if not self.lose(self.sent):
            self._controller.publish(topic, payload, qos=0).wait_for_publish(10.0)


def _open(www, path):
    try:
        return (www / path).open("rb")
    except OSError as error:
        raise ShoalError(str(error)) from error


@pytest.fixture
def broker_kind():
    """What ships; the other broker's permissions are tested beside its own."""
    return "mosquitto"


@pytest.fixture
async def path(connect, site):
    """Both ends connected and subscribed."""
    director, device = await connect(DIRECTOR_ACCOUNT), await connect("gw-1")
    assert await director.subscribe(fetch_filter())
    assert await device.subscribe("shoal/v1/lab/gw-1/blocks/+")
    path = Path(device.client, director.client, site.www)
    yield path
    path.server.close()


async def _fetch(device, path, package, assigned, **sources):
    request = FetchRequest(
        str(device.folder),
        assigned(package),
        {"runtimes": "tflite"},
        msgspec.structs.replace(BY_BROKER, **sources),
    )
    return await ask_updater(request, blocks=path.blocks)


async def test_a_release_arrives_by_the_broker_alone(device, site, owners, release, path, assigned):
    package = owners.release(release(7))
    assert isinstance(await _fetch(device, path, package, assigned), Staged)
    assert site.take_requests() == []


async def test_lost_blocks_are_asked_for_again_and_no_others(
    device, owners, release, path, assigned
):
    """Seven blocks of a file, in two windows, two of which get lost."""
    package = owners.release(release(7, padding=7 * BLOCK_BYTES - 5000))
    path.lose = lambda number: number in (14, 16)
    assert isinstance(await _fetch(device, path, package, assigned), Staged)
    documents = 5 + 3  # of metadata, director aside; manifest, model, golden samples
    assert path.sent <= documents + 6 + 2 + 1


async def test_killed_on_the_way_it_goes_on_at_the_last_window(
    device, owners, release, path, assigned
):
    package = owners.release(release(7, padding=9 * BLOCK_BYTES))
    golden = package.manifest.file("golden.json")
    path.lose = lambda number: number > 14
    task = asyncio.create_task(_fetch(device, path, package, assigned))
    part = device.folder / "files" / f"{golden.sha256}.part"
    async with asyncio.timeout(60.0):
        while size_of(part) < 4 * BLOCK_BYTES:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    before, path.lose = path.sent, lambda number: False
    assert isinstance(await _fetch(device, path, package, assigned), Staged)
    assert path.sent - before <= 3 + 6 + 1


async def test_what_is_not_there_is_said(device, path, owners, release, assigned):
    package = release(8)
    owners.add(package)
    owners.publish()
    for one in package.manifest.files:
        (owners.folder / "files" / one.sha256).unlink()
    refused = await refusal(_fetch(device, path, package, assigned))
    assert (refused.code, refused.retryable) == ("download-failed", True)


async def test_a_lying_broker_is_found_out(device, path, owners, release, assigned):
    """Row 15: it puts other bytes into blocks."""
    package = owners.release(release(7))
    model = package.manifest.file("model.tflite")
    (owners.folder / "files" / model.sha256).write_bytes(bytes(model.length))
    assert (await refusal(_fetch(device, path, package, assigned))).code == "digest-mismatch"


async def test_where_no_http_answers_the_broker_does(device, site, path, owners, release, assigned):
    package = owners.release(release(7))
    site.misbehave("", "status", status=503)
    assert isinstance(await _fetch(device, path, package, assigned, transport="auto"), Staged)


async def test_a_limit_of_speed_makes_smaller_blocks(device, path, owners, release, assigned):
    package = owners.release(release(7))
    reply = await _fetch(device, path, package, assigned, max_bytes_per_second=20_000.0)
    assert isinstance(reply, Staged)


async def test_without_a_link_it_fails_at_once(device):
    refused = await refusal(ask_updater(RefreshRequest(str(device.folder), BY_BROKER)))
    assert (refused.code, refused.retryable) == ("download-failed", True)
