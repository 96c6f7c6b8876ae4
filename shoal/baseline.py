"""The baseline: what normal data looks like, in bins that every device counts in.

Made once from training data (`shoal.statistics.make_baseline`), travels in the package, holds no
raw rows. Needs no numpy, so controller and agent may read it anywhere.

Bins: `edges` rise strictly; a value v falls into bin `number of edges ≤ v`, so the first of the
`len(edges) + 1` bins is "under", the last "over". Continuous fields have quantile edges, discrete
ones edges half-way between their values, constant ones two edges around their value.
"""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from shoal.errors import InvalidInputError
from shoal.protocol import SCHEMA

MAX_BASELINE_BYTES = 4 * 1024 * 1024
MAX_EDGES = 255

Count = Annotated[int, Meta(ge=0, le=2**53)]
Kind = Literal["continuous", "discrete", "constant"]


class FieldBaseline(Struct, kw_only=True, frozen=True):
    """One feature or output in the training data."""

    name: Annotated[str, Meta(min_length=1, max_length=80)]
    kind: Kind
    edges: Annotated[list[float], Meta(max_length=MAX_EDGES)]
    counts: list[Count]
    count: Count
    missing: Count = 0
    mean: float = 0.0
    m2: Annotated[float, Meta(ge=0)] = 0.0
    min: float = 0.0
    max: float = 0.0

    @property
    def std(self) -> float:
        """Sample standard deviation; 0 with fewer than two values."""
        return math.sqrt(self.m2 / (self.count - 1)) if self.count > 1 else 0.0


class Calibration(Struct, kw_only=True, frozen=True):
    """How often answers to labelled rows were right, by the score they had.

    In the bins of the output's baseline; see `shoal.performance`.
    """

    output: Annotated[str, Meta(min_length=1, max_length=80)]
    counts: list[Count]
    correct: list[Count]


class Baseline(Struct, kw_only=True, frozen=True):
    """Features in the contract's order, then outputs in the contract's order."""

    schema: int = SCHEMA
    rows: Count
    features: list[FieldBaseline]
    outputs: list[FieldBaseline]
    projections: list[FieldBaseline] = []
    """Fixed mixtures of the features: a changed correlation moves them and no single feature."""
    calibration: Calibration | None = None
    """Where the author gave labelled rows."""


def projection_sign(name: str, index: int) -> float:
    """1 or -1: how a feature goes into projection `index`.

    Drawn by hash of the feature's name, so author and device agree without sending signs.
    """
    return 1.0 if hashlib.sha256(f"{index}|{name}".encode()).digest()[0] & 1 else -1.0


def encode_baseline(baseline: Baseline) -> bytes:
    """Encode deterministically."""
    return msgspec.json.encode(baseline, order="deterministic")


def decode_baseline(data: bytes) -> Baseline:
    """Decode and check, or raise `InvalidInputError` naming every mistake."""
    if len(data) > MAX_BASELINE_BYTES:
        raise InvalidInputError(f"baseline: {len(data)} bytes, at most {MAX_BASELINE_BYTES} read")
    try:
        baseline = msgspec.json.decode(data, type=Baseline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"baseline: {error}", code="invalid-baseline") from error
    problems = [] if baseline.schema <= SCHEMA else [f"schema {baseline.schema} is too new"]
    for field in [*baseline.features, *baseline.outputs, *baseline.projections]:
        problems += _problems(field)
    if baseline.calibration is not None:
        problems += _miscounted(baseline.calibration, baseline.outputs)
    if problems:
        raise InvalidInputError("baseline: " + "; ".join(problems), code="invalid-baseline")
    return baseline


def _problems(field: FieldBaseline) -> list[str]:
    problems = []
    if len(field.counts) != len(field.edges) + 1:
        problems.append(
            f"{field.name}: {len(field.counts)} bins for {len(field.edges)} edges, "
            "expected one more"
        )
    if any(not a < b for a, b in pairwise(field.edges)):
        problems.append(f"{field.name}: edges do not rise")
    if sum(field.counts) != field.count:
        problems.append(f"{field.name}: bins hold {sum(field.counts)} of {field.count} values")
    return problems


def _miscounted(known: Calibration, outputs: list[FieldBaseline]) -> list[str]:
    what = f"calibration of {known.output}"
    bins = next((len(one.counts) for one in outputs if one.name == known.output), None)
    if bins is None:
        return [f"{what}: no such output"]
    if not len(known.counts) == len(known.correct) == bins:
        got = f"{len(known.counts)} and {len(known.correct)}"
        return [f"{what}: {got} bins, expected {bins}"]
    if not sum(known.counts):
        return [f"{what}: no labelled rows"]
    if any(a > b for a, b in zip(known.correct, known.counts, strict=True)):
        return [f"{what}: more right answers than answers"]
    return []
