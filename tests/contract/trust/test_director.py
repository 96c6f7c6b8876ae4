"""Who may tell a device what to do: forged, stolen, replayed and outdated messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from agent.floors import read_floors
from shoal.protocol.desired import MAX_SEQUENCE_STEP, decode_desired
from shoal.protocol.envelope import COMMAND_TYPE, DESIRED_TYPE, encode_envelope
from shoal.signing import FileSigner, seal
from tests.contract.trust.conftest import refusal

pytestmark = pytest.mark.contract


async def test_a_desired_state_of_the_director_is_obeyed(device):
    payload = await device.verify(device.desired())
    assert decode_desired(payload).sequence == 1
    assert read_floors(device.folder).desired_sequence == 1


async def test_a_second_one_needs_no_network_while_metadata_are_fresh(device, site):
    await device.verify(device.desired())
    site.take_requests()
    await device.verify(device.desired())
    await device.verify_command(device.command())
    assert site.take_requests() == []


async def test_keys_that_no_verified_target_names_are_not_obeyed(device):
    """Row 15: whoever holds the broker signs with a key of their own."""
    thief = FileSigner.generate()
    assert (await refusal(device.verify(device.desired(signer=thief)))).code == "unknown-key"
    assert (await refusal(device.verify_command(device.command(signer=thief)))).code == (
        "unknown-key"
    )


async def test_unknown_keys_make_a_device_ask_only_where_it_may(device, site):
    await device.verify(device.desired())
    site.take_requests()
    forged = device.desired(signer=FileSigner.generate())
    assert (await refusal(device.verify(forged, may_refresh=False))).code == "unknown-key"
    assert site.take_requests() == []


async def test_a_rotated_director_key_is_found_and_the_old_one_is_not_obeyed_any_more(
    device, owners
):
    """Row 18."""
    await device.verify(device.desired())
    new = FileSigner.generate()
    owners.set_director([new.public_key])
    owners.publish()
    await device.verify(device.desired(signer=new))
    assert (await refusal(device.verify(device.desired()))).code == "unknown-key"
    assert len(list((device.folder / "trust" / "targets").iterdir())) == 1


async def test_a_director_target_swapped_on_the_disk_is_not_believed(device):
    """Row 34: its hash is compared at every use."""
    await device.verify(device.desired())
    (path,) = (device.folder / "trust" / "targets").iterdir()
    thief = FileSigner.generate()
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"keys"', b'"kees"'))
    assert (await refusal(device.verify(device.desired(signer=thief)))).code == "unknown-key"
    await device.verify(device.desired())


@pytest.mark.parametrize(("keys", "code"), [(None, "no-director"), ([], "director-malformed")])
async def test_without_a_director_nobody_is_obeyed(device, owners, keys, code):
    """Row 20: no key to verify with is no reason to go without."""
    if keys is None:
        del owners.targets.targets["trust/director.json"]
    else:
        owners.set_director(keys)
    owners.publish()
    assert (await refusal(device.verify(device.desired()))).code == code


async def test_messages_for_another_device_are_refused(device):
    """Rows 11 and 12: an empty one, too."""
    assert (await refusal(device.verify(device.desired(device="gw-2")))).code == "wrong-device"
    command = device.command(device="gw-2")
    assert (await refusal(device.verify_command(command))).code == "wrong-device"


async def test_a_message_of_another_kind_is_refused(device):
    """A command's signature says nothing about a desired state."""
    now = datetime.now(UTC)
    payload = {"schema": 1, "device": "gw-1", "sequence": 9, "issued": now, "models": []}
    body = msgspec.json.encode({**payload, "expires": now + timedelta(days=1)})
    as_command = encode_envelope(seal(body, COMMAND_TYPE, device.director))
    assert (await refusal(device.verify(as_command))).code == "wrong-payload-type"
    as_desired = encode_envelope(seal(body, DESIRED_TYPE, device.director))
    assert (await refusal(device.verify_command(as_desired))).code == "wrong-payload-type"


async def test_an_older_one_is_refused_even_when_the_agents_own_store_is_lost(device):
    """Row 13: the store would say 0, the floors know better."""
    first, second = device.desired(), device.desired()
    await device.verify(second)
    assert (await refusal(device.verify(first, floor=0))).code == "old-sequence"
    await device.verify(second)  # the very same again is no harm


async def test_the_same_sequence_with_other_content_is_an_attack(device):
    """Row 13."""
    await device.verify(device.desired())
    device.sequence -= 1
    refused = await refusal(device.verify(device.desired(expires=datetime.now(UTC))))
    assert refused.code == "expired"
    device.sequence -= 1
    later = datetime.now(UTC) + timedelta(days=6)
    assert (await refusal(device.verify(device.desired(expires=later)))).code == "desired-conflict"


async def test_a_sequence_that_leaves_no_room_is_refused(device):
    """Row 6: a stolen director key must not brick a device."""
    await device.verify(device.desired())
    jump = device.desired(sequence=MAX_SEQUENCE_STEP + 2)
    assert (await refusal(device.verify(jump))).code == "sequence-jump"


async def test_outdated_and_overlong_messages_are_refused(device):
    """Row 14."""
    old = datetime.now(UTC) - timedelta(days=8)
    expired = device.desired(issued=old, expires=old + timedelta(days=7))
    assert (await refusal(device.verify(expired))).code == "expired"
    endless = device.desired(expires=datetime.now(UTC) + timedelta(days=400))
    assert (await refusal(device.verify(endless))).code == "valid-too-long"


async def test_a_device_that_was_long_offline_must_first_see_fresh_metadata(device, owners, site):
    """Row 14: what it obeys is signed, but its knowledge of keys is stale and none is to be had."""
    owners.expiry["timestamp"] = owners.now + timedelta(seconds=3)
    owners.sign_timestamp()
    await device.refresh()
    site.misbehave("", "status", status=503)
    owners.issued = owners.now + timedelta(hours=1)  # its clock is moved on by signed time alone
    floors = read_floors(device.folder)
    from agent.floors import write_floors

    write_floors(
        device.folder,
        msgspec.structs.replace(floors, time_ms=floors.time_ms + 3_600_000),
    )
    refused = await refusal(device.verify(device.desired()))
    assert (refused.code, refused.retryable) == ("download-failed", True)


async def test_a_signed_time_far_ahead_is_no_reason_to_move_the_clock(device):
    """Row 21: the director's key is online."""
    ahead = datetime.now(UTC) + timedelta(days=1000)
    forged = device.desired(issued=ahead, expires=ahead + timedelta(days=1))
    assert (await refusal(device.verify(forged))).code == "time-jump"
    await device.verify(device.desired())


@pytest.mark.parametrize("envelope", [b"", b"{}", b"[" * 30_000, b"\xff", b"x" * 70_000])
async def test_what_is_no_envelope_is_refused(device, envelope):
    refused = await refusal(device.verify(envelope))
    assert refused.code in ("envelope-malformed", "envelope-too-large")
    assert not refused.retryable
