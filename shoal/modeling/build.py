"""From a trained model and its data to a signed package: files, golden samples, baseline.

`build_package` computes everything that must agree with the model by running it the way a
device does (`shoal.steps` around a forward function), so an author states only intentions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from shoal.baseline import Baseline, Calibration, encode_baseline
from shoal.dense import Activation, encode_dense
from shoal.errors import InvalidInputError
from shoal.modeling.autoencoder import LIMIT, Autoencoder
from shoal.modeling.onnx import write_onnx
from shoal.package import Package, file_entries, make_package
from shoal.performance import calibrate, score_output
from shoal.protocol.manifest import (
    Clip,
    Contract,
    Feature,
    Gates,
    Golden,
    Lineage,
    Manifest,
    ModelCard,
    OutputField,
    Probation,
    ReconstructionError,
    Requires,
    Scale,
    Threshold,
    Variant,
)
from shoal.signing import Signer
from shoal.statistics import make_baseline
from shoal.steps import fill_missing, postprocess, preprocess
from shoal.tflite.reader import read_model
from shoal.tflite.requirements import complete_requires
from shoal.tflite.writer import Dense, forward, write_float32, write_int8

Floats = NDArray[np.float32]
Forward = Callable[[Floats], Floats]
GOLDEN_SAMPLES = 16
SUFFIXES = {"tflite": "tflite", "onnx": "onnx", "numpy": "json"}
"""Ending of a model file by the kind of runtime that reads it."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows that the model was not trained on, with the label that each should get.

    A window should get the label of its last row.
    """

    rows: Floats
    labels: list[str]


@dataclass(frozen=True, slots=True)
class Draft:
    """What an author states of a release before it is built."""

    model: str
    version: str
    sequence: int
    contract: Contract
    variants: list[Variant]
    files: dict[str, bytes]
    forward: Forward
    """Input tensor (windows, values) to output tensor (windows, values), e.g. in numpy."""
    rows: Floats
    """Training rows (n, features) in sensor units, NaN where missing."""
    golden_absolute: float = 1e-3
    golden_relative: float = 0.05
    probation: Probation = field(default_factory=Probation)
    gates: Gates = field(default_factory=Gates)
    card: ModelCard = field(default_factory=ModelCard)
    lineage: Lineage = field(default_factory=Lineage)
    labelled: Labelled | None = None
    """From which devices' accuracy is estimated later; see `shoal.performance`."""
    created: datetime | None = None
    """None: now. Same draft and time, same package."""


def build_package(draft: Draft, *signers: Signer) -> Package:
    """Return the signed package of a draft."""
    contract = draft.contract
    filled, usable = fill_missing(contract, draft.rows.astype(np.float32))
    complete = filled[usable]
    if len(complete) < contract.window_rows:
        raise InvalidInputError(f"training data: {len(complete)} usable rows, too few")
    inputs = preprocess(contract, complete)
    outputs, _ = postprocess(contract, inputs, draft.forward(inputs))
    files = dict(draft.files)
    files["golden.json"] = _golden(contract, complete, outputs)
    names = [one.name for one in contract.features] if contract.profile_features else []
    columns = draft.rows if names else np.empty((len(draft.rows), 0), np.float32)
    baseline = make_baseline(columns, outputs, names, [one.name for one in contract.outputs])
    if draft.labelled is not None:
        baseline = replace(baseline, calibration=_calibration_of(draft, draft.labelled, baseline))
    files["baseline.json"] = encode_baseline(baseline)
    tolerance = draft.golden_absolute
    manifest = Manifest(
        model=draft.model,
        version=draft.version,
        sequence=draft.sequence,
        created=(draft.created or datetime.now(UTC)).isoformat(timespec="seconds"),
        files=file_entries(files),
        variants=draft.variants,
        contract=contract,
        golden=Golden(
            file="golden.json",
            absolute={"xnnpack": tolerance, "reference": tolerance},
            relative=draft.golden_relative,
        ),
        baseline="baseline.json",
        probation=draft.probation,
        gates=draft.gates,
        card=draft.card,
        lineage=draft.lineage,
    )
    return make_package(manifest, files, *signers)


def _calibration_of(draft: Draft, labelled: Labelled, baseline: Baseline) -> Calibration:
    """Answer labelled rows, and count which are right at which score."""
    contract, name = draft.contract, score_output(draft.contract)
    if name is None:
        raise InvalidInputError(
            "labelled rows: expected a class_scores or threshold step whose field is an output"
        )
    filled, usable = fill_missing(contract, labelled.rows.astype(np.float32))
    complete = filled[usable]
    if len(complete) < contract.window_rows:
        raise InvalidInputError(f"labelled rows: {len(complete)} usable rows, too few")
    inputs = preprocess(contract, complete)
    outputs, labels = postprocess(contract, inputs, draft.forward(inputs))
    given = labels or []  # never none: the score above is of a step that labels
    kept = [label for label, use in zip(labelled.labels, usable, strict=True) if use]
    expected = kept[contract.window_rows - 1 :: contract.stride_rows]
    if not set(expected) & set(given):
        raise InvalidInputError(
            f"labelled rows: none has a label that the model gave, {sorted(set(given))[:5]}, "
            f"got {sorted(set(expected))[:5]}"
        )
    place = [one.name for one in contract.outputs].index(name)
    right = [a == b for a, b in zip(expected, given, strict=True)]
    return calibrate(baseline.outputs[place], outputs[:, place].tolist(), right)


def _golden(contract: Contract, rows: Floats, outputs: Floats) -> bytes:
    """Windows spread over the data, with what they must give."""
    chosen = np.unique(np.linspace(0, len(outputs) - 1, GOLDEN_SAMPLES).astype(int))
    windows = [
        rows[i * contract.stride_rows : i * contract.stride_rows + contract.window_rows]
        for i in chosen
    ]
    return msgspec.json.encode(
        {
            "inputs": [_short(window.ravel()) for window in windows],
            "outputs": [_short(outputs[i]) for i in chosen],
        }
    )


def _short(values: Floats) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


def autoencoder_draft(
    model: Autoencoder,
    rows: Floats,
    features: list[Feature],
    *,
    name: str,
    version: str,
    sequence: int,
    threshold: float | None = None,
    score_high: float | None = None,
    card: ModelCard | None = None,
    lineage: Lineage | None = None,
    kinds: Collection[str] = ("tflite",),
) -> Draft:
    """Draft a release of an autoencoder: float32 and int8 variants, score and label.

    `kinds` may add "onnx" and "numpy", for devices that have no TFLite runtime.

    `threshold` defaults to the 99.5 % quantile of training scores; `score_high`, the end of the
    range of sane scores, to five times the threshold. Golden tolerance: int8 moves a score by up
    to a fifth of the threshold here, so that much is allowed.
    """
    complete = rows[np.isfinite(rows).all(axis=1)]
    scores = model.score(complete)
    limit = float(np.quantile(scores, 0.995)) if threshold is None else threshold
    contract = Contract(
        features=features,
        outputs=[OutputField(name="score", low=0.0, high=score_high or 5 * limit)],
        window_rows=model.window_rows,
        preprocess=[
            Scale(mean=_short(model.mean), std=_short(model.std)),
            Clip(low=-LIMIT, high=LIMIT),
        ],
        postprocess=[ReconstructionError(), Threshold(above=float(f"{limit:.6g}"))],
    )
    inputs = model.standardise(complete)
    variants, files = _variants(model, inputs, kinds)
    return Draft(
        model=name,
        version=version,
        sequence=sequence,
        contract=contract,
        variants=variants,
        files=files,
        forward=lambda x: forward(model.layers, x)[-1],
        rows=rows,
        golden_absolute=float(f"{limit / 5:.3g}"),
        golden_relative=0.1,
        card=card or ModelCard(),
        lineage=lineage or Lineage(),
    )


def _variants(
    model: Autoencoder, inputs: Floats, kinds: Collection[str]
) -> tuple[list[Variant], dict[str, bytes]]:
    """A file of each kind and precision, with what a device needs for it."""
    made: list[tuple[str, str, Literal["float32", "int8"], bytes]] = []
    if "tflite" in kinds:
        made.append(("tflite", "int8", "int8", write_int8(model.layers, _calibration(inputs))))
        made.append(("tflite", "float32", "float32", write_float32(model.layers)))
    if "onnx" in kinds:
        made.append(("onnx", "onnx", "float32", write_onnx(model.layers)))
    if "numpy" in kinds:
        layers = [(one.weights, one.bias, _activation(one)) for one in model.layers]
        made.append(("numpy", "numpy", "float32", encode_dense(layers)))
    variants, files = [], {}
    for number, (kind, name, precision, data) in enumerate(made):
        file = f"model.{name}.{SUFFIXES[kind]}" if kind == "tflite" else f"model.{SUFFIXES[kind]}"
        requires = Requires()
        if kind == "tflite":
            requires = complete_requires(requires, read_model(data, file))
        variants.append(
            Variant(
                name=name,
                runtime=kind,
                file=file,
                precision=precision,
                priority=len(made) - number,
                requires=requires,
            )
        )
        files[file] = data
    return variants, files


def _activation(layer: Dense) -> Activation:
    return "relu" if layer.relu else "linear"


def _calibration(inputs: Floats) -> Floats:
    """Inputs and the same 1.75 times as far out, so that int8 keeps its answers under drift."""
    return np.concatenate([inputs, np.clip(inputs * 1.75, -LIMIT, LIMIT).astype(np.float32)])


def digest_rows(rows: Floats) -> str:
    """SHA-256 of a data set as float32, for lineage."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<f4").tobytes()).hexdigest()
