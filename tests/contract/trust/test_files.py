"""Attacks on releases and their files, and power cuts, against the real updater process."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import msgspec
import pytest

from agent.floors import raise_release
from agent.updater.wire import FetchRequest, Progress, Reached, Staged, decode_reply
from tests.contract.trust.conftest import refusal, size_of
from tests.contract.trust.owners import digest

pytestmark = pytest.mark.contract


@pytest.fixture
def seven(owners, release):
    """A release that the owners have signed."""
    return owners.release(release(7))


async def test_a_released_and_assigned_release_is_staged(device, seven, assigned):
    assert await device.fetch(assigned(seven)) == Staged("only", await _memory(device, seven))
    names = {path.name for path in (device.folder / "files").iterdir()}
    assert names == {seven.manifest_sha256, *(one.sha256 for one in seven.manifest.files)}


async def test_what_is_assigned_but_not_released_is_refused(device, release, assigned):
    """Row 16: whoever has the director's key can choose only among what was signed offline."""
    refused = await refusal(device.fetch(assigned(release(8))))
    assert (refused.code, refused.retryable) == ("unknown-target", False)


@pytest.mark.parametrize(
    "change", [{"version": "7.0.1"}, {"manifest_sha256": "0" * 64}, {"manifest_length": 5}]
)
async def test_what_is_assigned_must_be_what_was_released(device, seven, assigned, change):
    """Rows 1 and 16."""
    assert (await refusal(device.fetch(assigned(seven, **change)))).code == "assignment-mismatch"


async def test_a_manifest_that_names_another_release_is_refused(device, owners, release, assigned):
    """Row 3: old bytes under a new number."""
    old = release(7)
    target = owners.store("", old.manifest_bytes)
    target.path = "releases/echo/9.json"
    target.unrecognized_fields["custom"] = {
        "model": "echo",
        "version": "9.0.0",
        "release_sequence": 9,
    }
    owners.bin.targets[target.path] = target
    owners.publish()
    forged = assigned(old, version="9.0.0", release_sequence=9)
    assert (await refusal(device.fetch(forged))).code == "assignment-mismatch"


async def test_a_release_below_the_floor_is_refused_whoever_asks(
    device, owners, release, seven, assigned
):
    """Row 3: a compromised director asks for an old, vulnerable model, as a rollback."""
    owners.release(release(8))
    raise_release(device.folder, "echo", 8)
    refused = await refusal(device.fetch(assigned(seven, intent="rollback")))
    assert (refused.code, refused.retryable) == ("release-below-floor", False)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "replace", "serve": "metadata/timestamp.json"}, "download-failed"),
        ({"kind": "endless"}, "too-large"),
        ({"kind": "bomb", "megabytes": 64}, "too-large"),
        ({"kind": "truncate", "bytes": 10}, "download-failed"),
        ({"kind": "drip", "seconds": 0.05}, "download-slow"),
        ({"kind": "header-drip", "seconds": 0.05}, "download-slow"),
        ({"kind": "status", "status": 404}, "download-failed"),
    ],
)
async def test_a_hostile_file_is_refused_and_an_honest_one_is_taken_after(
    device, site, seven, assigned, fault, code
):
    """Rows 7 to 10."""
    device.sources = msgspec.structs.replace(
        device.sources, grace_seconds=1.0, min_bytes_per_second=100_000
    )
    path = f"files/{seven.manifest.file('model.tflite').sha256}"
    site.misbehave(path, **fault)
    refused = await refusal(device.fetch(assigned(seven)))
    assert (refused.code, refused.retryable) == (code, True)
    site.behave()
    device.sources = msgspec.structs.replace(device.sources, grace_seconds=30.0)
    assert isinstance(await device.fetch(assigned(seven)), Staged)


async def test_wrong_bytes_of_the_right_length_are_refused(device, site, seven, assigned):
    """Row 1: the hash counts, not where it came from."""
    model = seven.manifest.file("model.tflite")
    (site.www / "files" / "wrong").write_bytes(bytes(model.length))
    site.misbehave(f"files/{model.sha256}", "replace", serve="files/wrong")
    assert (await refusal(device.fetch(assigned(seven)))).code == "digest-mismatch"
    assert not (device.folder / "files" / model.sha256).exists()


async def test_a_lying_cache_nearby_costs_time_and_nothing_else(
    device, owners, site, mirror, seven, assigned
):
    """It serves old metadata, then wrong bytes for files; the controller's own answers count."""
    first = owners.read("timestamp.json")
    await device.refresh()
    owners.publish()
    (mirror.www / "metadata").mkdir()
    (mirror.www / "metadata" / "timestamp.json").write_bytes(first)
    await device.refresh()
    device.sources = msgspec.structs.replace(device.sources, mirrors=[mirror.url])
    (mirror.www / "files").mkdir()
    for one in seven.manifest.files:
        (mirror.www / "files" / one.sha256).write_bytes(b"lies")
    assert isinstance(await device.fetch(assigned(seven)), Staged)
    asked = mirror.take_requests()
    assert "metadata/timestamp.json " in asked
    assert any(line.startswith("files/") for line in asked)


async def test_an_honest_cache_nearby_spares_the_controller(device, site, mirror, seven, assigned):
    (mirror.www).rmdir()
    mirror.www.symlink_to(site.www)
    device.sources = msgspec.structs.replace(device.sources, mirrors=[mirror.url])
    site.take_requests()
    assert isinstance(await device.fetch(assigned(seven)), Staged)
    assert site.take_requests() == []


async def test_names_of_targets_never_become_paths(device, owners, release):
    """Row 29: everything lies under its hash, whatever an evil target is called."""
    evil = owners.store("../../evil", b"evil")
    owners.targets.targets["../../evil"] = evil
    owners.bin.targets["releases/../../../evil.json"] = evil
    owners.publish()
    await device.refresh()
    await device.verify(device.desired())
    assert not list(device.folder.parent.glob("**/evil*"))
    from shoal.errors import UntrustedError
    from shoal.protocol.desired import decode_desired

    models = [{"model": "../../evil", "version": "1.0.0", "release_sequence": 1}]
    with pytest.raises(UntrustedError):
        decode_desired(json.dumps({"models": models}).encode())


async def test_a_limit_of_speed_is_kept(device, owners, release, assigned):
    """And does not count as slowness."""
    package = owners.release(release(7, padding=40_000))
    device.sources = msgspec.structs.replace(
        device.sources, max_bytes_per_second=20_000, min_bytes_per_second=1e6
    )
    begun = time.monotonic()
    assert isinstance(await device.fetch(assigned(package)), Staged)
    assert time.monotonic() - begun > 1.0


async def test_killed_at_any_byte_it_goes_on_where_it_was(device, site, seven, assigned):
    """Power cuts at every step of a fetch, until one gets through."""
    request = FetchRequest(
        str(device.folder), assigned(seven), {"runtimes": "tflite"}, device.sources
    )
    model = seven.manifest.file("model.tflite")
    files = device.folder / "files"
    for part in range(0, model.length, max(model.length // 4, 1)):
        site.misbehave(f"files/{model.sha256}", "truncate", bytes=1 + part)
        await _killed_once(request, files / f"{model.sha256}.part", part)
    site.behave()
    assert isinstance(await device.fetch(assigned(seven)), Staged)
    assert digest((files / model.sha256).read_bytes()) == model.sha256


async def _killed_once(request: FetchRequest, part: Path, size: int) -> None:
    """Run an updater and kill it when the part has grown beyond `size`, or it has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent.updater",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    process.stdin.write(msgspec.json.encode(request) + b"\n")
    async with asyncio.timeout(60.0):
        while line := await process.stdout.readline():
            reply = decode_reply(line)
            if not isinstance(reply, Progress | Reached):
                break
            if isinstance(reply, Progress) and size_of(part) > size:
                break
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def _memory(device, package) -> int:
    """What staging it says of memory; the same every time."""
    reply = await device.fetch(_assignment(package))
    return reply.memory_bytes


def _assignment(package):
    from tests.contract.agent.conftest import assignment_of

    return assignment_of(package)
