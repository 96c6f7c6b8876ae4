"""Answering commands about captures: send a range, or run one sample on every slot again."""

from __future__ import annotations

import array
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from agent.capture.store import CaptureStore, Sample
from agent.loading import ReleaseLoader
from agent.reporter import Reporter, round_
from agent.slots import ReleaseRef, Slots
from agent.workers import frames
from agent.workers.frames import InferRequest
from agent.workers.pool import ForkserverPool
from shoal.errors import ShoalError
from shoal.protocol.commands import CaptureRange, Replay

MAX_VALUES = 4000
"""Of the samples in one message: even 20 characters each leave room."""


def send_range(order: CaptureRange, store: CaptureStore, reporter: Reporter) -> str:
    """Put samples into the outbox; say how many."""
    found = store.find(order.model, order.since_ms, order.until_ms, order.limit)
    sent = 0
    for part in _parts(found):
        first = part[0]
        reporter.captures(
            model=first.model,
            version=first.version,
            release_sequence=first.release_sequence,
            manifest=first.manifest,
            features=first.features,
            names=first.names,
            redacted=first.redacted,
            samples=[_wire(one) for one in part],
        )
        sent += len(part)
    return json.dumps({"samples": sent, "too_large": len(found) - sent})


def _parts(samples: list[Sample]) -> Iterator[list[Sample]]:
    """Samples of one release together, as many as a message takes; what is too large is left."""
    for _, group in groupby(samples, key=lambda one: one.manifest):
        part: list[Sample] = []
        used = 0
        for one in group:
            size = len(one.rows) // 4 + len(one.features) + len(one.outputs) + 20
            if size > MAX_VALUES:
                continue
            if part and used + size > MAX_VALUES:
                yield part
                part, used = [], 0
            part.append(one)
            used += size
        if part:
            yield part


def _wire(sample: Sample) -> dict[str, Any]:
    return {
        "capture": sample.capture,
        "sample_ms": sample.sample_ms,
        "reason": sample.reason,
        "rows": _rows(sample),
        "outputs": [None if one is None else round_(one) for one in sample.outputs],
        "label": sample.label,
    }


def _rows(sample: Sample) -> list[list[float | None]]:
    flat, width = array.array("f", sample.rows).tolist(), len(sample.features)
    rounded = [round_(value) for value in flat]
    return [rounded[at : at + width] for at in range(0, len(rounded), width)]


async def replay(
    order: Replay, store: CaptureStore, slots: Slots | None, files: Path, pool: ForkserverPool
) -> str:
    """Run a sample on every slot of its model, each in a worker of its own, and compare.

    The workers that answer for the device are left alone: their statistics are of real data.
    """
    sample = store.get(order.model, order.capture)
    if sample is None:
        raise ShoalError(f"{order.model}: no capture {order.capture}", code="no-capture")
    if slots is None:
        raise ShoalError(f"{order.model}: not bound on this device", code="no-binding")
    loader = ReleaseLoader(order.model, files, pool)
    answers = {name: await _answer(loader, ref, sample) for name, ref in _releases(slots).items()}
    return json.dumps({"captured": _wire(sample) | {"version": sample.version}, "slots": answers})


def _releases(slots: Slots) -> dict[str, ReleaseRef]:
    candidate = slots.candidate.release if slots.candidate is not None else None
    found = {"active": slots.active, "last_good": slots.last_good, "candidate": candidate}
    if candidate == slots.active:
        del found["candidate"]
    return {name: ref for name, ref in found.items() if ref is not None}


async def _answer(loader: ReleaseLoader, ref: ReleaseRef, sample: Sample) -> dict[str, Any]:
    """What one release says to the sample, or why it says nothing."""
    about: dict[str, Any] = {"version": ref.version, "variant": ref.variant}
    try:
        worker = await loader.load(ref)
    except ShoalError as error:
        return about | {"code": error.code, "sentence": error.sentence}
    try:
        contract = worker.release.manifest.contract
        wanted = [feature.name for feature in contract.features]
        if sorted(wanted) != sorted(set(sample.features) & set(wanted)):
            missing = ", ".join(sorted(set(wanted) - set(sample.features))[:5])
            sentence = f"{ref.version} needs features that were not captured: {missing}"
            return about | {"code": "other-features", "sentence": sentence}
        values = _reordered(sample, wanted)
        rows = len(values) // (4 * len(wanted))
        answer = await worker.infer(InferRequest(0, rows, len(wanted), values))
        facts = worker.facts
        about |= {"runtime": f"{facts.runtime} {facts.version}", "kernels": facts.kernels}
        if not answer.windows:
            holes = frames.MISSING in answer.rows
            words = "rows are missing values (redacted?)" if holes else "fewer rows than a window"
            return about | {"code": "no-answer", "sentence": f"{ref.version}: {words}"}
        outputs = array.array("f", answer.values)[-answer.outputs :]
        names = [output.name for output in contract.outputs]
        about["outputs"] = {name: round_(one) for name, one in zip(names, outputs, strict=True)}
        about["label"] = worker.labels[answer.labels[-1]] if answer.labels else ""
    except ShoalError as error:
        return about | {"code": error.code, "sentence": error.sentence}
    finally:
        await worker.close()
    return about


def _reordered(sample: Sample, wanted: list[str]) -> bytes:
    """The sample's rows with the features of a release, in its order."""
    if sample.features == wanted:
        return sample.rows
    flat, width = array.array("f", sample.rows), len(sample.features)
    at = [sample.features.index(name) for name in wanted]
    rows = range(0, len(flat), width)
    return array.array("f", [flat[row + column] for row in rows for column in at]).tobytes()
