"""`shoal evaluate`: what a device made of a run whose anomalies are known."""

from __future__ import annotations

import csv as csv_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, print_json
from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from shoal.client import Client
    from shoal.modeling.evaluate import Quality
    from shoal.modeling.labelled import Answered, Evaluation, LabelledRun

ROW = "{:<28}{:>8}{:>11}{:>10}{:>7}{:>14}{:>15}"
HEAD = ROW.format("run", "rows", "anomalies", "answered", "F1", "false alarms", "missed alarms")


def evaluate(
    device: Annotated[str, typer.Argument(help="The device that replayed the runs.")],
    model: Annotated[str, typer.Argument(help="The model that answered.")],
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN.csv...", help="Its rows with their labels.")
    ],
    time_column: Annotated[str, typer.Option(help="The column that the device took times from.")],
    label_column: Annotated[str, typer.Option(help="1 where a row is an anomaly, else 0.")],
    alarm: Annotated[str, typer.Option(help="The model's label that is an alarm.")] = "anomaly",
    normal: Annotated[
        Path | None, typer.Option(help="A CSV of normal data: a z-score rule is shown beside.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Compare the answers that a device published with the labels of the rows it read.

    The device needs an action of kind mqtt and, in its source, the time column.
    """
    from shoal.cli.table import read_table
    from shoal.modeling.labelled import evaluate_run, join_runs, z_score_alarms

    baseline = read_table(normal, time_column=time_column) if normal is not None else None
    parts = []
    with connect(url) as client:
        for path in runs:
            run = read_run(path, time_column, label_column)
            answered = _answers(client, device, model, run, alarm)
            simple = None
            if baseline is not None:
                simple = z_score_alarms(baseline.rows, read_table(path, baseline.columns).rows)
            parts.append((run, answered, simple))
    found = [evaluate_run(*part) for part in parts]
    if len(found) > 1:
        found.append(join_runs("all", parts))
    print_json([_document(one) for one in found]) if as_json else typer.echo(report(found))


def read_run(path: Path, time_column: str, label_column: str) -> LabelledRun:
    """Times and labels of a CSV; each time may stand there once."""
    import numpy as np

    from shoal.cli.table import read_table, sniff_separator
    from shoal.modeling.labelled import LabelledRun
    from shoal.times import parse_time_ms

    labels = read_table(path, [label_column]).rows[:, 0]
    times: dict[int, int] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        separator = sniff_separator(file.readline())
        file.seek(0)
        reader = csv_module.DictReader(file, delimiter=separator)
        if time_column not in (reader.fieldnames or []):
            raise InvalidInputError(f"CSV {path}: no column {time_column!r}")
        for row in reader:
            try:
                moment = parse_time_ms(row[time_column])
            except (ValueError, TypeError):
                raise InvalidInputError(
                    f"CSV {path}, column {time_column!r}, line {reader.line_num}: expected "
                    f"milliseconds or ISO 8601, got {str(row[time_column])[:80]!r}"
                ) from None
            line = times.setdefault(moment, reader.line_num)
            if line != reader.line_num:
                raise InvalidInputError(
                    f"CSV {path}, column {time_column!r}, line {reader.line_num}: the same time "
                    f"as line {line}; answers are matched by time, so each may stand once"
                )
    if not np.isin(labels, (0.0, 1.0)).all():
        raise InvalidInputError(f"CSV {path}, column {label_column!r}: expected only 0 and 1")
    return LabelledRun(path.name, np.fromiter(times, np.int64, len(times)), labels == 1.0)


def _answers(client: Client, device: str, model: str, run: LabelledRun, alarm: str) -> Answered:
    from shoal.modeling.labelled import match_answers

    if not len(run.times_ms):
        raise InvalidInputError(f"CSV {run.name}: holds no row")
    since, until = int(run.times_ms.min()), int(run.times_ms.max())
    found = list(client.all_predictions(device, model, since_ms=since, until_ms=until))
    if not found:
        raise InvalidInputError(
            f"{device}: no answer of {model} within the time of {run.name}; expected an action "
            "of kind mqtt and time_column in the device's source",
            code="no-answers",
        )
    return match_answers(run, sorted(found, key=lambda one: one["id"]), alarm)


def report(found: list[Evaluation]) -> str:
    """The page for people."""
    lines = [HEAD]
    for one in found:
        counts = (f"{one.rows:,}", f"{one.anomalies:,}", f"{one.answered:,}")
        lines.append(ROW.format(one.name[:27], *counts, *_rates(one.quality)))
        if one.z_score is not None:
            lines.append(ROW.format("  z-score rule", "", "", "", *_rates(one.z_score)))
    lines += [
        f"{one.name}: {number:,} {words}"
        for one in found
        for number, words in (
            (one.rows - one.answered, "rows without an answer, left out of the rates"),
            (one.answered_again, "rows answered more than once, the newest answer counts"),
            (one.strangers, "answers between its rows that belong to none"),
        )
        if number
    ]
    return "\n".join(lines)


def _rates(found: Quality) -> tuple[str, str, str]:
    return f"{found.f1:.3f}", f"{found.false_alarm_rate:.2%}", f"{found.missed_alarm_rate:.2%}"


def _document(one: Evaluation) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(one)
