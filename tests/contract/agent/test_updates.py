"""Updates on a real device: all the way, refused, rolled back, and back again."""

from __future__ import annotations

import pytest

from shoal.protocol.manifest import Probation, Shadow

pytestmark = pytest.mark.contract


async def _commit(device, *assignments):
    for one in assignments:
        device.manager.assign(one)
        await device.until(lambda one=one: device.versions[0] == one.version)


async def test_an_update_goes_through_every_stage_while_the_old_release_answers(
    device, repository, assign
):
    one, two = repository.publish(1), repository.publish(2, shadow=Shadow(rows=50))
    await device.start(assign(one))
    await device.until(lambda: device.versions == ("1.0.0", None))
    seen = []
    save = device.store.save_slots
    device.store.save_slots = lambda slots: (seen.append(slots.candidate.stage.value), save(slots))
    await _commit(device, assign(two))
    await device.until(lambda: device.execution("2.0.0")[-1:] == ["succeeded"])
    assert seen == [
        "assigned",
        "downloading",
        "verified",
        "compatible",
        "staged",
        "loaded",
        "warm",
        "golden",
        "shadow",
        "probation",
        "committed",
    ]
    assert device.execution("2.0.0") == [
        "accepted",
        "downloading",
        "staged",
        "verifying",
        "shadowing",
        "activating",
        "soaking",
        "succeeded",
    ]
    assert device.versions == ("2.0.0", "1.0.0")
    agreed = next(one for one in device.events("execution") if one.code == "shadow-agreement")
    assert agreed.data["label_agreement"] == 1.0
    assert agreed.data["mean_difference"] == 0.0
    assert agreed.data["shadow_rows"] >= 50
    await device.stop()
    assert device.lost == {}


async def test_a_candidate_that_disagrees_beside_the_active_release_is_refused_with_numbers(
    device, repository, assign
):
    shadow = Shadow(rows=60, min_label_agreement=0.0, max_mean_difference=0.5)
    one, wild = repository.publish(1), repository.publish(2, gain=9.0, shadow=shadow)
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    device.manager.assign(assign(wild))
    await device.until(lambda: device.execution("2.0.0")[-1:] == ["rejected"])
    refused = device.events("execution")[-1]
    assert (refused.code, refused.data["state"]) == ("shadow-disagreement", "rejected")
    assert refused.data["mean_difference"] > 100
    assert refused.data["max_difference"] > refused.data["mean_difference"]
    assert "outputs differ from the active release's" in refused.sentence
    assert 0 < refused.data["label_agreement"] < 1
    await device.stop()
    assert device.answering == "1.0.0"
    assert device.lost == {}


async def test_wrong_golden_samples_refuse_a_release_before_it_answers(device, repository, assign):
    one, bad = repository.publish(1), repository.publish(2, golden_gain=2.0)
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    device.manager.assign(assign(bad))
    await device.until_stage("refused")
    assert device.slots.candidate.code == "golden-mismatch"
    assert device.answering == "1.0.0"
    await device.stop()
    assert device.lost == {}


async def test_answers_that_are_not_finite_roll_back_in_probation(device, repository, assign):
    one = repository.publish(1)
    bad = repository.publish(2, gain=3e38, golden=None)
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    device.manager.assign(assign(bad))
    await device.until_stage("rolled_back")
    assert device.slots.candidate.code == "output-non-finite"
    assert device.versions == ("1.0.0", None)
    await device.until(lambda: device.execution("2.0.0")[-1:] == ["rolled_back"])
    await device.stop()
    assert set(device.lost) == {"non-finite-output"}


async def test_going_back_to_the_release_before_needs_no_fetching(device, repository, assign):
    one, two = repository.publish(1), repository.publish(2)
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    await _commit(device, assign(two))
    asked = len(repository.requests)
    device.manager.assign(assign(one, intent="rollback", rollout="r-2", attempt=1))
    await device.until(lambda: device.versions == ("1.0.0", "2.0.0"))
    await device.until(lambda: device.answering == "1.0.0")
    assert len(repository.requests) == asked
    await device.stop()
    assert device.lost == {}


async def test_news_end_a_shadow_run(device, repository, assign):
    one = repository.publish(1)
    endless = repository.publish(2, shadow=Shadow(rows=10**9))
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    device.manager.assign(assign(endless))
    await device.until_stage("shadow")
    await _commit(device, assign(repository.publish(3)))
    assert device.versions == ("3.0.0", "1.0.0")
    await device.stop()
    assert device.lost == {}


async def test_the_active_release_assigned_anew_is_confirmed_without_a_swap(
    device, repository, assign
):
    one = repository.publish(1, probation=Probation(seconds=0.1, min_rows=5))
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    pid = device.manager.running.pid
    device.manager.assign(assign(one, attempt=1))
    await device.until(lambda: device.slots.candidate.assignment.attempt == 1)
    await device.until_stage("committed")
    assert device.manager.running.pid == pid


async def test_a_release_that_needs_more_than_the_device_has_is_refused_before_it_is_staged(
    device, repository, assign
):
    """The manifest asks for nothing; its file needs 2 MB of memory, by the device's own reading."""
    one, large = repository.publish(1), repository.publish(2)
    await device.start(assign(one))
    await device.until(lambda: device.versions[0] == "1.0.0")
    device.facts["memory_mb"] = 1
    device.manager.assign(assign(large))
    await device.until(lambda: device.execution("2.0.0")[-1:] == ["rejected"])
    refused = device.events("execution")[-1]
    assert refused.code == "incompatible"
    assert "memory_mb: needs 2, has 1 (use a smaller variant" in refused.sentence
    await device.stop()
    assert device.answering == "1.0.0"
    assert device.lost == {}
