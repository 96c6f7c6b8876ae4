"""What must have been seen, as pure functions from documents of the API to missing things.

Each returns sentences, one for each thing that was not observed; an empty list is a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

Document = dict[str, Any]


def unready_devices(
    devices: Iterable[Document], expected: Iterable[str], model: str, version: str
) -> list[str]:
    """Devices of `expected` that are not enrolled, online and running `version`."""
    by_name = {one["device"]: one for one in devices}
    missing = []
    for name in expected:
        device = by_name.get(name)
        if device is None:
            missing.append(f"{name}: not enrolled")
        elif not device["online"]:
            missing.append(f"{name}: not online")
        elif (runs := active_version(device, model)) != version:
            missing.append(f"{name}: runs {model} {runs or 'nothing'}, expected {version}")
    return missing


def active_version(device: Document, model: str) -> str | None:
    """The version of `model` that a device reports as active."""
    for one in device["models"]:
        if one["model"] == model:
            return str(one["active_version"]) if one["active_version"] else None
    return None


def silent_devices(windows: Mapping[str, list[Document]], sequence: int) -> list[str]:
    """Devices whose windows do not show that release `sequence` answered rows."""
    return [
        f"{device}: no window in which release {sequence} answered rows"
        for device, own in windows.items()
        if not any(one["release_sequence"] == sequence and one["ok"] > 0 for one in own)
    ]


def wave_faults(
    rollout: Document,
    executions: Iterable[Document],
    windows: Mapping[str, list[Document]],
    names: list[str],
    sequence: int,
) -> list[str]:
    """What contradicts a rollout that succeeded wave by wave, in the order of `names`."""
    waves = sorted(rollout["waves"], key=lambda one: one["number"])
    faults = []
    if rollout["state"] != "succeeded":
        faults.append(
            f"rollout {rollout['rollout']}: expected succeeded, got {rollout['state']}: "
            f"{rollout['reason']}"
        )
    if [wave["name"] for wave in waves] != names:
        faults.append(f"waves: expected {names}, got {[wave['name'] for wave in waves]}")
    faults += [
        f"wave {wave['name']}: expected passed, got {wave['state']}"
        for wave in waves
        if wave["state"] != "passed"
    ]
    faults += [
        f"wave {after['name']}: released before {before['name']} was finished"
        for before, after in pairwise(waves)
        if not _follows(before, after)
    ]
    return faults + _early_devices(waves, executions, windows, sequence)


def _follows(before: Document, after: Document) -> bool:
    finished, released = before["finished_ms"], after["released_ms"]
    return finished is not None and released is not None and released >= finished


def _early_devices(
    waves: list[Document],
    executions: Iterable[Document],
    windows: Mapping[str, list[Document]],
    sequence: int,
) -> list[str]:
    """Devices that had the release before their wave: by the controller, and by their reports."""
    released = {wave["number"]: wave["released_ms"] for wave in waves}
    faults, seen = [], set()
    for one in executions:
        device, start = one["device"], released.get(one["wave"])
        seen.add(device)
        if start is None or one["offered_ms"] is None or one["offered_ms"] < start:
            faults.append(f"{device}: offered the release before its wave {one['wave']}")
        first = [w["start_ms"] for w in windows[device] if w["release_sequence"] == sequence]
        if start is not None and first and min(first) < start:
            faults.append(f"{device}: ran the release before its wave {one['wave']}")
    return faults + [f"{name}: in no wave" for name in windows if name not in seen]


def rollback_faults(
    rollout: Document,
    executions: list[Document],
    devices: Iterable[Document],
    windows: Mapping[str, list[Document]],
    bad: Document,
    good: Document,
) -> list[str]:
    """What contradicts a release that was tried, caught and taken back everywhere."""
    model = good["model"]
    faults = []
    if rollout["state"] != "rolled_back":
        faults.append(f"rollout {rollout['rollout']}: expected rolled_back, got {rollout['state']}")
    tried = {one["device"] for one in executions if one["offered_ms"] is not None}
    if not tried:
        faults.append("no device was ever offered the bad release")
    if not any(name in rollout["reason"] for name in tried):
        faults.append(f"the reason names no device that tried it: {rollout['reason']!r}")
    faults += [
        f"{device['device']}: runs {runs}, expected {good['version']}"
        for device in devices
        if (runs := active_version(device, model)) != good["version"]
    ]
    faults += [
        f"{name}: ran the bad release though its wave never came"
        for name, own in windows.items()
        if name not in tried and any(w["release_sequence"] == bad["sequence"] for w in own)
    ]
    return faults


def unaccounted_windows(windows: Mapping[str, list[Document]]) -> list[str]:
    """Windows in which in ≠ ok + dropped + failed."""
    faults = []
    for device, own in windows.items():
        for one in own:
            sums = one["ok"] + sum(one["dropped"].values()) + sum(one["failed"].values())
            if one["in_count"] != sums:
                faults.append(
                    f"{device}: window ending {one['end_ms']}: {one['in_count']} rows in, "
                    f"{sums} accounted for"
                )
    return faults


def rejected_messages(rejections: Iterable[Document]) -> list[str]:
    """Messages the controller could not accept."""
    return [
        f"{one['device'] or 'unknown device'}: {one['count']} messages on {one['channel']} "
        f"rejected as {one['code']}: {one['example']}"
        for one in rejections
    ]


def counted_rows(windows: Mapping[str, list[Document]]) -> tuple[int, int]:
    """Rows in and rows answered, over all windows."""
    every = [one for own in windows.values() for one in own]
    return sum(one["in_count"] for one in every), sum(one["ok"] for one in every)
