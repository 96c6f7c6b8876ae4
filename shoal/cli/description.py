"""Somebody's own model files and a TOML that describes them, to a signed package.

    model = "pump"
    version = "1.0.0"
    sequence = 1
    baseline_csv = "training.csv"

    [[variants]]
    file = "pump.tflite"

    [contract]
    features = [{ name = "flow", unit = "l/min" }]
    outputs = [{ name = "score" }]
    postprocess = [{ op = "raw_outputs", fields = ["score"] }]

`contract`, `probation`, `gates`, `card` and `lineage` are those of the manifest. Unknown keys are
refused at any depth: a misspelt limit must not become its default in silence.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from shoal.cli.table import OnProgress, read_labels, read_table
from shoal.cli.variants import Model, answers, find_runtime, golden_misses, load_model
from shoal.errors import InvalidInputError
from shoal.modeling.build import Draft, Labelled, build_package, digest_rows
from shoal.package import MAX_PACKAGE_BYTES, Package, file_entries, make_package
from shoal.protocol.manifest import (
    Contract,
    Gates,
    Lineage,
    Manifest,
    ModelCard,
    Name,
    Positive,
    Probation,
    Requires,
    Variant,
    Version,
    find_problems,
)
from shoal.signing import Signer
from shoal.tflite.reader import read_model
from shoal.tflite.requirements import complete_requires

TFLITE_MAGIC = b"TFL3"
KINDS = {".tflite": "tflite", ".onnx": "onnx", ".json": "numpy"}
"""Kind of file by its ending."""
Tolerance = Annotated[float, Meta(ge=0)]


class DescribedVariant(Struct, kw_only=True, frozen=True):
    """One model file; `name` is the file's without ending unless given."""

    file: Annotated[str, Meta(min_length=1)]
    name: str = ""
    runtime: str = ""
    """tflite, onnx or numpy; by the file's ending unless given."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    priority: int = 0
    requires: Requires = Requires()


class Description(Struct, kw_only=True, frozen=True):
    """The TOML. Paths are relative to it."""

    model: Name
    version: Version
    sequence: Positive
    variants: Annotated[list[DescribedVariant], Meta(min_length=1, max_length=16)]
    contract: Contract
    baseline_csv: str | None = None
    """Training rows; baseline and golden samples come from running the model on them."""
    labelled_csv: str | None = None
    """Rows that the model was not trained on; from them devices' accuracy is estimated later."""
    label_column: str = "label"
    """Of `labelled_csv`."""
    golden_absolute: Tolerance = 1e-3
    golden_relative: Tolerance = 0.05
    probation: Probation = Probation()
    gates: Gates = Gates()
    card: ModelCard = ModelCard()
    lineage: Lineage = Lineage()


def load_description(path: Path) -> Description:
    """Read and check the TOML, or raise `InvalidInputError` with the path of the mistake."""
    what = f"description {path}"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        description = msgspec.convert(table, Description)
    except OSError as error:
        raise InvalidInputError(f"{what}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of UTF-8, TOML and shape
        raise InvalidInputError(f"{what}: {error}") from error
    problems = [f"{key} is not known" for key in _unknown(table, msgspec.to_builtins(description))]
    problems += _twice("features", [one.name for one in description.contract.features])
    problems += _twice("variants", [_variant_name(one) for one in description.variants])
    if problems:
        raise InvalidInputError(f"{what}: " + "; ".join(problems))
    return description


def _unknown(given: Any, known: Any, at: str = "") -> list[str]:
    """Keys of `given` that `known`, the same document as it was understood, does not have."""
    if isinstance(given, dict) and isinstance(known, dict):
        found = [f"{at}{key}" for key in given if key not in known]
        shared = [key for key in given if key in known]
        return found + [
            one for key in shared for one in _unknown(given[key], known[key], f"{at}{key}.")
        ]
    if isinstance(given, list) and isinstance(known, list):
        pairs = enumerate(zip(given, known, strict=True))
        return [one for i, (a, b) in pairs for one in _unknown(a, b, f"{at[:-1]}[{i}].")]
    return []


def _twice(what: str, names: list[str]) -> list[str]:
    counted = Counter(names).items()
    return [f"{what}: {name!r} is named {n} times" for name, n in counted if n > 1]


def _variant_name(variant: DescribedVariant) -> str:
    return variant.name or Path(variant.file).stem


def package_description(
    description: Description,
    folder: Path,
    signer: Signer,
    on_rows: OnProgress = lambda done, total: None,
) -> tuple[Package, list[str]]:
    """Return the package, and names of the variants that were run here."""
    files: dict[str, bytes] = {}
    variants = [_variant(one, folder, files) for one in description.variants]
    manifest = _bare_manifest(description, variants, files)
    if problems := find_problems(manifest):
        raise InvalidInputError("description: " + "; ".join(problems))
    runtime = find_runtime()
    models: dict[str, Model] = {}
    for one in variants:
        model = load_model(one.runtime, files[one.file], f"variant {one.name}", runtime)
        if model is not None:
            models[one.name] = model
    _try_out(description.contract, models)
    if description.labelled_csv is not None and description.baseline_csv is None:
        raise InvalidInputError("labelled_csv: expected baseline_csv too, for the bins of scores")
    if description.baseline_csv is None:
        return make_package(manifest, files, signer), list(models)
    if not models:
        raise InvalidInputError(
            "baseline_csv: expected a runtime to run the model, none for "
            f"{', '.join(sorted({one.runtime for one in variants}))} is installed"
        )
    draft = _draft(description, folder, variants, files, models, on_rows)
    package = build_package(draft, signer)
    for name, clause in golden_misses(package, models).items():
        raise InvalidInputError(
            f"variant {name}: {clause}; a device would refuse it: leave the variant out, or widen "
            "golden_absolute or golden_relative"
        )
    return package, list(models)


def _variant(described: DescribedVariant, folder: Path, files: dict[str, bytes]) -> Variant:
    """The manifest's entry of a variant; its file's content goes into `files`."""
    path = folder / described.file
    what = f"variant {_variant_name(described)}: file {described.file}"
    try:
        size = path.stat().st_size
        if size > MAX_PACKAGE_BYTES:
            raise InvalidInputError(f"{what}: {size} bytes, at most {MAX_PACKAGE_BYTES} are packed")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{what}: {error.strerror}") from error
    runtime = described.runtime or KINDS.get(path.suffix, "tflite")
    requires = described.requires
    if runtime == "tflite":
        if data[4:8] != TFLITE_MAGIC:
            raise InvalidInputError(f"{what}: expected a TFLite model, got {data[:8]!r}")
        requires = complete_requires(requires, read_model(data, what))
    if files.setdefault(path.name, data) != data:
        raise InvalidInputError(f"{what}: two different files are called {path.name}, rename one")
    try:
        return msgspec.convert(
            {
                "name": _variant_name(described),
                "file": path.name,
                "runtime": runtime,
                "precision": described.precision,
                "priority": described.priority,
                "requires": requires,
            },
            Variant,
        )
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{what}: {error}") from error


def _bare_manifest(
    description: Description, variants: list[Variant], files: dict[str, bytes]
) -> Manifest:
    return Manifest(
        model=description.model,
        version=description.version,
        sequence=description.sequence,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=file_entries(files),
        variants=variants,
        contract=description.contract,
        probation=description.probation,
        gates=description.gates,
        card=description.card,
        lineage=description.lineage,
    )


def _try_out(contract: Contract, models: dict[str, Model]) -> None:
    """Run one window of zeros, so that contract and models are known to fit together."""
    window = np.zeros((contract.window_rows, len(contract.features)), np.float32)
    for model in models.values():
        answers(contract, model, window)


def _draft(
    description: Description,
    folder: Path,
    variants: list[Variant],
    files: dict[str, bytes],
    models: dict[str, Model],
    on_rows: OnProgress,
) -> Draft:
    names = [one.name for one in description.contract.features]
    source = folder / str(description.baseline_csv)
    rows = read_table(source, names).rows
    labelled = None
    if description.labelled_csv is not None:
        held_out = folder / description.labelled_csv
        labels = read_labels(held_out, description.label_column)
        labelled = Labelled(read_table(held_out, names).rows, labels)
    here = [one for one in variants if one.name in models]
    best = max(here, key=lambda one: (one.precision == "float32", one.priority))
    reference = models[best.name]
    lineage = description.lineage
    if lineage == Lineage():
        lineage = Lineage(dataset=source.name, dataset_sha256=digest_rows(rows), rows=len(rows))
    return Draft(
        model=description.model,
        version=description.version,
        sequence=description.sequence,
        contract=description.contract,
        variants=variants,
        files=files,
        forward=lambda inputs: reference.forward(inputs, on_rows),
        rows=rows,
        golden_absolute=description.golden_absolute,
        golden_relative=description.golden_relative,
        probation=description.probation,
        gates=description.gates,
        card=description.card,
        lineage=lineage,
        labelled=labelled,
    )
