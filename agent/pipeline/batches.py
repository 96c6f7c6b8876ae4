"""Micro-batches, purely: how many rows one may have, and which of their columns and rows count."""

from __future__ import annotations

import array

from agent.pipeline import windowing
from agent.ports import Answers, Samples, StagedRelease
from agent.workers import frames
from agent.workers.frames import InferAnswer
from shoal.protocol.manifest import Contract

BATCH_ROWS = 64
"""Rows of a micro-batch at most, unless the model is fast."""
MAX_BATCH_ROWS = 256
BATCH_US = 5_000.0
"""What more rows than `BATCH_ROWS` may take together, and a batch that another may wait behind:
a swap waits for both."""
BATCH_BYTES = 512 * 1024
"""What they may weigh: the event loop copies them at once."""


def fitting_rows(rows: int, took_us: float, row_bytes: int, batch_us: float = BATCH_US) -> int:
    """Rows of the next micro-batch at most, by what this one took and by their size.

    >>> fitting_rows(64, 640.0, 40), fitting_rows(64, 640.0, 12_288), fitting_rows(256, 5e5, 40)
    (256, 42, 64)
    """
    quick = int(rows * batch_us / max(took_us, 1.0))
    return max(min(max(quick, BATCH_ROWS), MAX_BATCH_ROWS, BATCH_BYTES // row_bytes), 1)


def features_of(contract: Contract) -> list[str]:
    """Names of the columns that a release takes, in its order."""
    return [one.name for one in contract.features]


def shape_of(contract: Contract) -> tuple[list[str], int, int]:
    """What two releases must share for one to go on with the other's carried rows."""
    return features_of(contract), contract.window_rows, contract.stride_rows


def reordered(samples: Samples, names: list[str], wanted: list[str]) -> Samples:
    """The columns `wanted` of rows that were read for `names`."""
    if samples.width != len(names):
        return samples
    values = array.array("f", samples.values)
    picked = array.array("f", bytes(4 * len(wanted) * len(samples.times_ms)))
    for at, name in enumerate(wanted):
        picked[at :: len(wanted)] = values[names.index(name) :: len(names)]
    return Samples(samples.times_ms, picked.tobytes(), len(wanted))


def usable(samples: Samples, answer: InferAnswer) -> tuple[bytes, list[int]]:
    """The rows that reached the model: their bytes and times."""
    if frames.MISSING not in answer.rows:
        return samples.values, samples.times_ms
    row = samples.width * 4
    keep = [i for i, status in enumerate(answer.rows) if status != frames.MISSING]
    kept = b"".join(samples.values[i * row : (i + 1) * row] for i in keep)
    return kept, [samples.times_ms[i] for i in keep]


def answers_of(
    model: str,
    release: StagedRelease,
    labels: list[str],
    answer: InferAnswer,
    times: list[int],
    carried: int,
) -> Answers:
    """What actions get: each window's answer with the time of its last row.

    `times` are those of the fresh rows; `carried` rows came before them.
    """
    manifest = release.manifest
    contract = manifest.contract
    last = windowing.last_rows(answer.windows, contract.window_rows, contract.stride_rows)
    flat = array.array("f", answer.values).tolist()
    width = answer.outputs
    return Answers(
        model=model,
        version=manifest.version,
        release_sequence=manifest.sequence,
        names=[output.name for output in contract.outputs],
        times_ms=[times[index - carried] for index in last],
        values=[flat[i : i + width] for i in range(0, len(flat), width)],
        labels=[labels[index] for index in answer.labels],
    )
