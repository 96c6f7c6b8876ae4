"""`shoal train autoencoder`: from a CSV of normal data to a signed package."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.making import Key, Out, check_release, prepare, progress, write
from shoal.cli.session import AsJson, print_json
from shoal.errors import InvalidInputError

app = typer.Typer(
    help="Train a model and package it, signed.", no_args_is_help=True, rich_markup_mode=None
)

MAX_LAYERS = 8
MAX_LAYER_SIZE = 4096
NAMED_SEPARATORS = {"\\t": "\t", "tab": "\t"}


@app.command("autoencoder")
def autoencoder(
    csv: Annotated[Path, typer.Argument(metavar="CSV", help="Normal data, with a header line.")],
    name: Annotated[str, typer.Option(help="The model's name.")],
    model_version: Annotated[str, typer.Option(help="The release's version, e.g. 1.0.0.")],
    sequence: Annotated[int, typer.Option(min=1, help="Rises with every release of a model.")],
    key: Key,
    out: Out,
    features: Annotated[
        str | None, typer.Option(help="Columns, e.g. flow,temp. Default: all but the time.")
    ] = None,
    time_column: Annotated[str | None, typer.Option(help="The column that is no feature.")] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between cells. Default: as the header line looks.")
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option(help="A feature's unit, e.g. flow=l/min. Repeat.")
    ] = None,
    window_rows: Annotated[
        int, typer.Option(min=1, max=4096, help="Rows that the model sees at once.")
    ] = 1,
    hidden: Annotated[
        str | None, typer.Option(help="Sizes of the layers between. Default: 8,3,8, or narrower.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, max=100_000, help="Passes over the data.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Same data and seed, same model.")] = 1,
    threshold: Annotated[
        float | None,
        typer.Option(help="Scores above are anomalies. Default: 99.5 % of the CSV stay below."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an anomaly detector on normal data; it scores rows by how badly it rebuilds them."""
    check_release(name, model_version)
    units, sizes = _units(unit or []), _sizes(hidden)
    if threshold is not None and not 0 < threshold < math.inf:
        raise InvalidInputError(f"--threshold: expected a number above 0, got {threshold:g}")
    signer = prepare(key, out)

    from shoal.cli.package_page import page
    from shoal.cli.table import MAX_NAMES_SHOWN, read_table
    from shoal.cli.training import Order, report_lines, train

    with progress("reading") as on_bytes:
        table = read_table(
            csv,
            None if features is None else [one.strip() for one in features.split(",")],
            time_column=time_column,
            separator=_separator(separator),
            on_bytes=on_bytes,
        )
    if unknown := [one for one in units if one not in table.columns]:
        names = ", ".join(table.columns[:MAX_NAMES_SHOWN])
        raise InvalidInputError(f"--unit {unknown[0]}: expected a feature, one of {names}")
    order = Order(
        name=name,
        version=model_version,
        sequence=sequence,
        dataset=csv.name,
        units=units,
        hidden=sizes,
        window_rows=window_rows,
        epochs=epochs,
        seed=seed,
        threshold=threshold,
    )
    with progress("training") as on_epoch:
        package, report = train(order, table, signer, on_epoch)
    report |= write(package, out)
    print_json(report) if as_json else typer.echo(page(report_lines(report)))


def _units(pairs: list[str]) -> dict[str, str]:
    units = {}
    for pair in pairs:
        name, sign, unit = pair.partition("=")
        if not name or not sign:
            raise InvalidInputError(f"--unit {pair!r}: expected name=unit")
        units[name] = unit
    return units


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    sizes = [int(one) if one.strip().isdecimal() else 0 for one in text.split(",")]
    if len(sizes) > MAX_LAYERS or not all(1 <= size <= MAX_LAYER_SIZE for size in sizes):
        raise InvalidInputError(
            f"--hidden {text[:80]!r}: expected at most {MAX_LAYERS} numbers of 1 to "
            f"{MAX_LAYER_SIZE}, e.g. 8,3,8"
        )
    return tuple(sizes)


def _separator(text: str | None) -> str | None:
    separator = NAMED_SEPARATORS.get(text, text) if text is not None else None
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise InvalidInputError(f"--separator {text!r}: expected one character, or tab")
    return separator
