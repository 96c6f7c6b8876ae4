"""`shoal audit list|verify`: who changed what, and that nobody changed that."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import exits
from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, print_json, show
from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from shoal.audit import Verdict

app = typer.Typer(
    help="The audit log: who changed what.", no_args_is_help=True, rich_markup_mode=None
)

MAX_EXPORT_BYTES = 1024**3


@app.command("list")
def list_rows(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="Every row, oldest first.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List changes, newest first; `--all --json` is an export that `verify` takes."""
    from shoal.cli.people_tables import audit_table

    with connect(url) as client:
        rows = client.whole_audit() if everything else client.audit(limit=limit)
    show(rows, as_json, audit_table(rows))


@app.command("verify")
def verify(
    file: Annotated[Path | None, typer.Argument(help="An export; else the controller's.")] = None,
    noted: Annotated[
        str, typer.Option(help="A hash that `verify` printed earlier; must still be there.")
    ] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Walk the chain of hashes and say where it breaks (exit 1), or what its newest hash is."""
    from shoal.audit import GENESIS, parse_rows, walk

    if file is None:
        with connect(url) as client:
            verdict = walk(parse_rows(client.whole_audit()), start=GENESIS, noted=noted)
    else:
        verdict = walk(parse_rows(_read(file)), start=None, noted=noted)
    if as_json:
        print_json(asdict(verdict) | {"whole": verdict.whole})
    else:
        typer.echo(_sentence(verdict))
    if not verdict.whole:
        raise typer.Exit(exits.REFUSED)


def _read(file: Path) -> Any:
    try:
        if file.stat().st_size > MAX_EXPORT_BYTES:
            raise InvalidInputError(f"audit log {file}: more than {MAX_EXPORT_BYTES} bytes")
        return json.loads(file.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"audit log {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"audit log {file}: no JSON ({error})") from error


def _sentence(verdict: Verdict) -> str:
    if verdict.broken_id is not None:
        return f"broken at row {verdict.broken_id}: {verdict.why}"
    if verdict.why:
        return f"broken: {verdict.why}"
    start = f" from row {verdict.first_id} on" if verdict.first_id not in (None, 1) else ""
    return f"whole: {verdict.rows} rows{start}, newest hash {verdict.newest}"
