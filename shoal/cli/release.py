"""`shoal release push|list|show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show

app = typer.Typer(
    help="Releases: signed versions of models.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("push")
def push(
    package: Annotated[Path, typer.Argument(help="A .shoal file, made by `shoal package`.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Publish a package to the controller. No device runs it before a rollout."""
    with connect(url) as client:
        document = client.push_release(package)
    sentence = f"published {document['model']} {document['version']}"
    show(document, as_json, f"{sentence} (sequence {document['sequence']})")


@app.command("list")
def list_releases(
    model: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List models and their releases."""
    from shoal.cli.render import release_table

    with connect(url) as client:
        names = [model] if model else [str(one["model"]) for one in client.models()]
        releases = [release for name in names for release in client.model(name)["releases"]]
    show(releases, as_json, release_table(releases))


@app.command("show")
def show_release(model: str, version: str, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show one release with its manifest."""
    from shoal.cli.render import release_page

    with connect(url) as client:
        document = client.release(model, version)
    show(document, as_json, release_page(document))
