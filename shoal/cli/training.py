"""From rows of a user's CSV to a signed package with an autoencoder, and what to say about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.cli.table import OnProgress, Table
from shoal.cli.variants import agreement, find_runtime, golden_misses, load_models
from shoal.errors import InvalidInputError
from shoal.modeling.autoencoder import train_autoencoder
from shoal.modeling.build import Draft, autoencoder_draft, build_package, digest_rows
from shoal.package import Package
from shoal.protocol.manifest import Feature, Lineage, ModelCard, Threshold
from shoal.signing import Signer

Floats = NDArray[np.float32]
MAX_VALUES = 100_000_000
"""Of all windows together; each takes four bytes, several times over."""
COMPARED_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Order:
    """What the author asks for."""

    name: str
    version: str
    sequence: int
    dataset: str
    units: dict[str, str] = field(default_factory=dict)
    hidden: tuple[int, ...] | None = None
    """None: 8, 3, 8, or narrower in the middle where a window has no more values than that."""
    window_rows: int = 1
    epochs: int = 60
    seed: int = 1
    threshold: float | None = None


def train(
    order: Order,
    table: Table,
    signer: Signer,
    on_epoch: OnProgress = lambda done, total: None,
) -> tuple[Package, dict[str, Any]]:
    """Return the package, and a report for people and programs."""
    complete = _complete_rows(order, table)
    width = order.window_rows * len(table.columns)
    hidden = order.hidden or (8, min(3, width - 1), 8)
    model = train_autoencoder(
        complete,
        hidden,
        window_rows=order.window_rows,
        epochs=order.epochs,
        seed=order.seed,
        on_epoch=lambda epoch, loss: on_epoch(epoch, order.epochs),
    )
    draft = autoencoder_draft(
        model,
        table.rows,
        [Feature(name=name, unit=order.units.get(name, "")) for name in table.columns],
        name=order.name,
        version=order.version,
        sequence=order.sequence,
        threshold=order.threshold,
        card=ModelCard(summary=f"Autoencoder on {', '.join(table.columns[:8])}."),
        lineage=Lineage(
            dataset=order.dataset,
            dataset_sha256=digest_rows(table.rows),
            rows=len(table.rows),
            converter="shoal.tflite.writer",
            seed=order.seed,
        ),
    )
    package, checked = _checked_package(draft, complete, signer)
    report = {
        "model": order.name,
        "version": order.version,
        "sequence": order.sequence,
        "features": table.columns,
        "notes": _notes(table.columns, complete, width, hidden),
        "rows": len(table.rows),
        "rows_used": len(complete),
        "threshold": _threshold(package),
        "files": {entry.name: entry.length for entry in package.manifest.files},
    }
    return package, report | checked


def _complete_rows(order: Order, table: Table) -> Floats:
    """Rows without a missing value, if they can be trained on."""
    present = np.isfinite(table.rows)
    complete = table.rows[present.all(axis=1)]
    if len(table.rows):
        for i, name in enumerate(table.columns):
            if not present[:, i].any():
                raise InvalidInputError(
                    f"{order.dataset}, column {name!r}: expected numbers, every cell is missing"
                )
    least = 10 * order.window_rows
    if len(complete) < least:
        raise InvalidInputError(
            f"{order.dataset}: expected at least {least} rows without a missing value "
            f"(10 × window rows), got {len(complete)} of {len(table.rows)}"
        )
    width = order.window_rows * len(table.columns)
    if width < 2:
        raise InvalidInputError(
            f"{order.dataset}: expected at least two values a window, got one feature and one row; "
            "there is nothing to compress: give --window-rows"
        )
    values = len(complete) * width
    if values > MAX_VALUES:
        raise InvalidInputError(
            f"{order.dataset}: expected at most {MAX_VALUES} values in all windows, got {values}; "
            "take fewer rows, features or window rows"
        )
    if len(_constant(table.columns, complete)) == len(table.columns):
        raise InvalidInputError(
            f"{order.dataset}: expected a column that varies, every feature is constant"
        )
    return complete


def _notes(columns: list[str], rows: Floats, width: int, hidden: tuple[int, ...]) -> list[str]:
    """What the author should know, though it is no mistake."""
    notes = [f"{name} never changes in this data" for name in _constant(columns, rows)]
    if min(hidden) >= width:
        notes.append(
            f"no layer is narrower than the {width} values of a window, so the model may learn to "
            "copy its input and find nothing"
        )
    return notes


def _constant(columns: list[str], rows: Floats) -> list[str]:
    same = rows.min(axis=0) == rows.max(axis=0)
    return [name for name, is_same in zip(columns, same, strict=True) if is_same]


def _checked_package(draft: Draft, rows: Floats, signer: Signer) -> tuple[Package, dict[str, Any]]:
    """The package without variants that a device would refuse, and how alike the variants are."""
    package = build_package(draft, signer)
    runtime = find_runtime()
    if runtime is None:
        return package, {"agreement": None, "left_out": {}}
    models, misses = load_models(package, runtime)
    misses |= golden_misses(package, models)
    alike = None
    if len(models) == len(draft.variants):
        sample = _sample(rows, draft.contract.window_rows)
        alike = agreement(draft.contract, models["float32"], models["int8"], sample)
    if misses:
        package = build_package(_without(draft, misses), signer)
    return package, {"agreement": alike, "left_out": misses}


def _without(draft: Draft, misses: dict[str, str]) -> Draft:
    """The draft with the variants that work."""
    kept = [one for one in draft.variants if one.name not in misses]
    if not kept:
        clauses = "; ".join(f"{name}: {clause}" for name, clause in misses.items())
        raise InvalidInputError(f"{draft.model} {draft.version}: no variant works here: {clauses}")
    return replace(draft, variants=kept, files={one.file: draft.files[one.file] for one in kept})


def _sample(rows: Floats, window_rows: int) -> Floats:
    """A stretch from the middle; neighbouring rows, since windows need them."""
    start = max((len(rows) - COMPARED_ROWS) // 2, 0)
    return rows[start : start + max(COMPARED_ROWS, window_rows)]


def _threshold(package: Package) -> float:
    steps = package.manifest.contract.postprocess
    return next(step.above for step in steps if isinstance(step, Threshold))


def report_lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The report for people."""
    name = f"{report['model']} {report['version']}, sequence {report['sequence']}"
    alike = report["agreement"]
    return [
        ("package", f"{report['package']}, {report['bytes']:,} bytes"),
        ("release", name),
        ("features", ", ".join(report["features"])),
        *[("note", one) for one in report["notes"]],
        ("rows", f"{report['rows_used']:,} used of {report['rows']:,}"),
        ("threshold", f"{report['threshold']:g}"),
        *[("file", f"{file}, {length:,} bytes") for file, length in report["files"].items()],
        ("agreement", _agreement(alike) if alike else "not measured"),
        *[("left out", f"{one}: {why}") for one, why in report["left_out"].items()],
        *[("signed by", one) for one in report["signed_by"]],
    ]


def _agreement(alike: dict[str, float | int]) -> str:
    return (
        f"float32 and int8: same label in {alike['same_label']:.2%} of {alike['windows']:,} "
        f"windows, scores differ by at most {alike['largest_difference']:g}"
    )
