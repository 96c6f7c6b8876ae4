"""How often a release is right in the field: the mean over its devices, without labels.

The estimate itself is `shoal.performance`; here are the devices that it is made of.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from controller.artifacts import Artifacts
from controller.drift.compare import estimate_merged, merge_newest, performance_document
from controller.releases import get_release
from controller.schema import device_models
from shoal.performance import Estimate, Refusal, estimate_fleet
from shoal.protocol.manifest import Manifest

Document = dict[str, Any]

WINDOWS = 12
MAX_DEVICES = 200
"""More are sampled: by the hash of their name, so always the same and of every site."""


def release_performance(
    connection: Connection, artifacts: Artifacts, model: str, version: str
) -> Document:
    """Estimate the accuracy of a release over the devices that run it."""
    release = get_release(connection, model, version)
    manifest = msgspec.convert(release["manifest"], Manifest)
    running = _running(connection, model, version)
    found: list[Estimate | Refusal] = []
    for device in running[:MAX_DEVICES]:
        merged = merge_newest(connection, device, model, WINDOWS)
        if merged is not None and merged.release_sequence == manifest.sequence:
            baseline = artifacts.baseline(merged.baseline)
            found.append(estimate_merged(manifest, baseline, merged))
    estimates = [one for one in found if isinstance(one, Estimate)]
    refusals = [one for one in found if isinstance(one, Refusal)]
    nothing = Refusal("no-statistics", "no device that runs it has sent statistics with bins")
    whole = estimate_fleet(estimates) if estimates else refusals[0] if refusals else nothing
    return {
        "model": model,
        "version": version,
        "devices_running": len(running),
        "devices_estimated": len(estimates),
        "devices_refused": len(refusals),
        **performance_document(whole),
    }


def _running(connection: Connection, model: str, version: str) -> list[str]:
    c = device_models.c
    query = select(c.device).where(c.model == model, c.active_version == version)
    names = connection.scalars(query).all()
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
