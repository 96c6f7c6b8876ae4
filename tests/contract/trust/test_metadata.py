"""Attacks on metadata, mounted over real HTTP against the real updater process."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest

from agent.floors import COPIES, read_floors
from agent.updater.metadata import MAX_VERSION_STEP
from tests.contract.trust.conftest import refusal

pytestmark = pytest.mark.contract


async def test_metadata_are_refreshed_and_remembered(device, owners):
    told = await device.refresh()
    assert told.versions == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
    owners.publish()
    assert (await device.refresh()).versions["snapshot"] == 2


async def test_nothing_new_costs_a_root_that_is_not_there_and_one_timestamp(device, site):
    await device.refresh()
    site.take_requests()
    await device.refresh()
    assert site.take_requests() == ["metadata/2.root.json ", "metadata/timestamp.json "]


@pytest.mark.parametrize("lost", [["timestamp"], ["timestamp", "snapshot"], ["everything"]])
async def test_an_older_world_is_refused_even_after_the_cache_is_lost(device, owners, lost):
    """Row 2: with both files gone, python-tuf alone takes the old ones."""
    old = owners.read("timestamp.json")
    for _ in range(3):
        owners.publish()
    await device.refresh()
    cache = device.folder / "trust" / "metadata"
    for role in lost:
        if role == "everything":
            shutil.rmtree(cache)
        else:
            (cache / f"{role}.json").unlink()
    owners.write("timestamp.json", old)
    assert (await refusal(device.refresh())).code == "metadata-rollback"


async def test_a_frozen_world_is_refused_when_its_timestamp_expires(device, owners):
    """Row 4."""
    await device.refresh()
    owners.expiry["timestamp"] = owners.now - timedelta(hours=1)
    owners.sign_timestamp()
    refused = await refusal(device.refresh())
    assert refused.code == "metadata-expired"
    assert refused.retryable


@pytest.mark.parametrize("role", ["snapshot", "targets"])
async def test_files_of_different_moments_are_refused(device, owners, role):
    """Row 5: each is signed, but they were never published together."""
    first = owners.read(f"1.{role}.json")
    owners.publish()
    owners.write(f"2.{role}.json", first)
    assert (await refusal(device.refresh())).code == "metadata-mismatch"


async def test_a_snapshot_that_takes_targets_back_is_refused(device, owners):
    """Row 2, by whoever holds the online keys."""
    owners.publish()
    await device.refresh()
    owners.sign_snapshot(targets=1)
    assert (await refusal(device.refresh())).code == "metadata-rollback"


async def test_recovery_from_versions_that_ran_away_is_a_rotation_of_keys(device, owners):
    """Row 6: after the owners replace the keys, versions may begin anew."""
    await device.refresh()
    owners.timestamp_version, owners.snapshot_version = 1000, 1000
    owners.publish()
    await device.refresh()
    owners.timestamp_version, owners.snapshot_version = 10, 10
    owners.publish()
    assert (await refusal(device.refresh())).code == "metadata-rollback"
    owners.rotate("timestamp")
    owners.rotate("snapshot")
    owners.publish()
    assert (await device.refresh()).versions["timestamp"] == 12


async def test_a_version_that_leaves_no_room_is_refused_and_forgotten(device, owners):
    """Row 6: a stolen online key must not use up the counter."""
    await device.refresh()
    honest = owners.timestamp_version
    owners.timestamp_version = MAX_VERSION_STEP + 10
    owners.sign_timestamp()
    assert (await refusal(device.refresh())).code == "metadata-jump"
    owners.timestamp_version = honest
    owners.sign_timestamp()
    assert (await device.refresh()).versions["timestamp"] == honest + 1


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json", "2.root"])
async def test_endless_metadata_are_cut_off(device, site, name):
    """Row 7."""
    site.misbehave(f"metadata/{name}", "endless")
    assert (await refusal(device.refresh())).code == "metadata-too-large"


@pytest.mark.parametrize("kind", ["drip", "header-drip", "silent"])
async def test_a_slow_server_is_given_up_at_the_deadline(device, site, kind):
    """Row 8: no silence is ever long enough for a timeout between bytes."""
    device.sources = device.sources.__class__(grace_seconds=1.0, min_bytes_per_second=100_000)
    seconds = 60.0 if kind == "silent" else 0.05
    site.misbehave("metadata/timestamp.json", kind, seconds=seconds)
    assert (await refusal(device.refresh())).code == "download-slow"


async def test_a_compression_bomb_stays_packed(device, site):
    """Row 9."""
    site.misbehave("metadata/timestamp.json", "bomb", megabytes=64)
    assert (await refusal(device.refresh())).code == "metadata-too-large"


async def test_a_truncated_file_is_a_failed_download(device, site):
    """Row 10."""
    site.misbehave("metadata/1.targets.json", "truncate", bytes=100)
    refused = await refusal(device.refresh())
    assert (refused.code, refused.retryable) == ("download-failed", True)


async def test_metadata_signed_by_nobody_we_know_are_refused(device, owners):
    """Rows 1 and 15: keys of somebody else."""
    owners.keys["timestamp"], kept = owners.keys["snapshot"], owners.keys["timestamp"]
    owners.sign_timestamp()
    assert (await refusal(device.refresh())).code == "metadata-unsigned"
    owners.keys["timestamp"] = kept
    owners.sign_timestamp()
    await device.refresh()


async def test_targets_need_as_many_signers_as_the_root_says(device, owners):
    """Row 17: one of two keys is not enough."""
    from securesystemslib.signer import CryptoSigner

    second = CryptoSigner.generate_ed25519()
    owners.root.add_key(second.public_key, "targets")
    owners.root.roles["targets"].threshold = 2
    owners.root.version += 1
    owners.sign_root()
    owners.publish()
    assert (await refusal(device.refresh())).code == "metadata-unsigned"
    owners.keys["targets"].append(second)
    owners.publish()
    await device.refresh()


async def test_roots_are_followed_one_by_one_from_the_pinned_one(device, owners):
    """Row 18."""
    for _ in range(3):
        owners.rotate("root")
    owners.rotate("timestamp")
    owners.publish()
    assert (await device.refresh()).versions["root"] == 5


async def test_a_root_that_the_owners_before_did_not_sign_is_refused(device, owners):
    """Row 18: a thief's root."""
    from securesystemslib.signer import CryptoSigner

    owners.keys["root"] = [CryptoSigner.generate_ed25519()]
    owners.root.add_key(owners.keys["root"][0].public_key, "root")
    owners.root.version += 1
    owners.sign_root()
    assert (await refusal(device.refresh())).code == "metadata-unsigned"


async def test_a_poisoned_cache_does_not_replace_the_pinned_root(
    device, owners, tmp_path, director
):
    """Row 19: a whole repository of the attacker's own, in cache and on the site."""
    from tests.contract.trust.owners import Owners

    await device.refresh()
    theirs = Owners(tmp_path / "theirs", director.public_key)
    cache = device.folder / "trust" / "metadata"
    for role in ("timestamp", "snapshot", "targets"):
        name = "timestamp.json" if role == "timestamp" else f"1.{role}.json"
        (cache / f"{role}.json").write_bytes(theirs.read(name))
        owners.write(name, theirs.read(name))
    (cache / "root.json").unlink()
    (cache / "root.json").write_bytes(theirs.first_root)
    (cache / "root_history" / "1.root.json").write_bytes(theirs.first_root)
    assert (await refusal(device.refresh())).code == "metadata-unsigned"


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
async def test_without_the_pinned_root_nothing_is_believed(device, owners, damage):
    """Row 20: the cache would do, but it is no anchor."""
    await device.refresh()
    root = device.folder / "trust" / "root.json"
    root.unlink()
    if damage != "missing":
        root.write_bytes(b"" if damage == "empty" else b"{}")
    assert (await refusal(device.refresh())).code == "no-root"
    assert (await refusal(device.verify(device.desired()))).code == "no-root"


async def test_one_damaged_copy_of_the_floors_is_made_good_by_the_other(device, owners):
    await device.refresh()
    path = device.folder / "trust" / COPIES[0]
    path.write_bytes(path.read_bytes()[:-9])
    owners.publish()
    await device.refresh()
    path.unlink()
    assert read_floors(device.folder).roles["timestamp"].version == 2


async def test_without_any_floors_nothing_is_activated(device, owners):
    """Row 2: a device that does not know what it has seen refuses until it is enrolled again."""
    from agent.trust import pin_root

    await device.refresh()
    for name in COPIES:
        (device.folder / "trust" / name).write_bytes(b"\0" * 40)
    refused = await refusal(device.refresh())
    assert (refused.code, refused.retryable) == ("floors-lost", False)
    pin_root(device.folder, owners.first_root)
    await device.refresh()


async def test_a_clock_in_1970_is_moved_up_by_signed_time_and_never_goes_back(device, owners):
    """Row 21: seen from 1970 nothing has ever expired; what was signed since is later."""
    years = timedelta(days=20 * 365)
    owners.now += years
    owners.rotate("root")  # as if all of it happened in twenty years, by this device's clock
    owners.publish()
    assert (await device.refresh()).time_ms >= owners.now.timestamp() * 1000 - 1000
    owners.issued = owners.now - timedelta(days=3)
    owners.expiry["timestamp"] = owners.now - timedelta(days=2)
    owners.sign_timestamp()
    assert (await refusal(device.refresh())).code == "metadata-expired"


async def test_a_clock_in_2099_is_named_as_the_cause(device, owners):
    """Row 21: all is expired, long ago; nothing is accepted, and the clock is suspected."""
    owners.now -= timedelta(days=73 * 365)
    owners.rotate("timestamp")
    owners.publish()
    refused = await refusal(device.refresh())
    assert refused.code == "clock-ahead"
    assert refused.retryable
    assert "is the clock of this device ahead?" in refused.sentence


async def test_a_stolen_online_key_cannot_push_time_beyond_what_offline_keys_signed(device, owners):
    """Row 21: else one message would make everything expired for ever."""
    owners.issued = owners.now + timedelta(days=1000)
    owners.expiry["timestamp"] = owners.now + timedelta(days=2000)
    owners.sign_timestamp()
    assert (await refusal(device.refresh())).code == "time-jump"
    owners.issued = None
    del owners.expiry["timestamp"]
    owners.sign_timestamp()
    await device.refresh()
