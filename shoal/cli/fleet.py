"""`shoal fleet`: how the whole fleet does."""

from __future__ import annotations

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("fleet")(fleet)


def fleet(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show how many devices are well, by site."""
    from shoal.cli.render import fleet_table

    with connect(url) as client:
        document = client.fleet()
    show(document, as_json, fleet_table(document))
