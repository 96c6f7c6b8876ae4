"""`shoal selector …`: see what a selector means, and keep it under a name."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show

app = typer.Typer(
    help="Selectors: which devices are meant.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="The name; other selectors say group:NAME.")]
Text = Annotated[str, typer.Argument(help="E.g. 'site:ulm profile:rpi4 not tag:lab'.")]


@app.command("preview")
def preview(
    text: Text,
    model: Annotated[str | None, typer.Option(help="Also say which cannot run it.")] = None,
    version: Annotated[str | None, typer.Option(help="The release of that model.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show which devices match, which are offline, and which cannot run a release."""
    from shoal.cli.selector_page import selector_page

    with connect(url) as client:
        document = client.preview_selector(text, model=model, version=version)
    show(document, as_json, selector_page(document))


@app.command("save")
def save(
    name: Name,
    text: Text,
    static: Annotated[bool, typer.Option("--static", help="Keep the devices of now.")] = False,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Save a selector, or a static group of the devices that match now."""
    with connect(url) as client:
        found = client.save_selector(name, text, static=static, note=note)
    show(found, as_json, f"selector {name} saved: {found['matched']:,} devices match now")


@app.command("list")
def list_selectors(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List saved selectors and static groups."""
    from shoal.cli.selector_page import selector_table

    with connect(url) as client:
        found = client.selectors()
    show(found, as_json, selector_table(found))


@app.command("remove")
def remove(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Forget a saved selector that no other speaks of."""
    with connect(url) as client:
        found = client.remove_selector(name)
    show(found, as_json, f"selector {name} removed")
