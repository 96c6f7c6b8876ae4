"""`shoal model …`: models of the registry, their aliases and who agreed to them, cards, lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, print_json, show
from shoal.errors import InvalidInputError

Document = dict[str, Any]

app = typer.Typer(
    help="Models: aliases, cards, lineage.", no_args_is_help=True, rich_markup_mode=None
)
alias_app = typer.Typer(
    help="Names that point at releases, such as champion.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(alias_app, name="alias")

Model = Annotated[str, typer.Argument(help="The model's name.")]
Alias = Annotated[str, typer.Argument(help="The alias, e.g. champion.")]
Reference = Annotated[str, typer.Argument(help="MODEL@VERSION or MODEL@ALIAS.")]
Change = Annotated[int, typer.Argument(help="The change, as `shoal model alias history` shows it.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]


def split_reference(text: str) -> tuple[str, str]:
    """MODEL@VERSION or MODEL@ALIAS as its two parts.

    >>> split_reference("weather@champion")
    ('weather', 'champion')
    """
    model, sign, reference = text.partition("@")
    if not model or not sign or not reference:
        raise InvalidInputError(f"{text[:120]!r}: expected MODEL@VERSION or MODEL@ALIAS")
    return model, reference


@app.command("list")
def list_models(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List models with their newest release and where aliases point."""
    from shoal.cli.registry_page import model_table

    with connect(url) as client:
        models, aliases = client.models(), client.aliases()
    show({"models": models, "aliases": aliases}, as_json, model_table(models, aliases))


@app.command("card")
def card(
    reference: Annotated[
        str, typer.Argument(help="MODEL@VERSION, MODEL@ALIAS, or a package, *.shoal.")
    ],
    html: Annotated[bool, typer.Option("--html", help="Print safe HTML.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show what a release is for and how well it does."""
    from rich.markdown import Markdown

    if reference.endswith(".shoal"):
        document = _card_of_package(Path(reference))
        if html:
            raise InvalidInputError("--html: expected a release that the controller has")
    else:
        with connect(url) as client:
            document = client.card(*split_reference(reference))
    if html and not as_json:
        typer.echo(document["html"], nl=False)
        return
    show(document, as_json, Markdown(document["markdown"]))


def _card_of_package(path: Path) -> Document:
    import msgspec

    from shoal.card import card_markdown
    from shoal.package import read_package

    manifest = msgspec.json.decode(read_package(path).manifest_bytes)
    return {
        "model": manifest["model"],
        "version": manifest["version"],
        "markdown": card_markdown(manifest),
    }


@app.command("lineage")
def lineage(model: Model, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show what a model's releases were made from."""
    from shoal.cli.registry_page import lineage_tree

    with connect(url) as client:
        document = client.lineage(model)
    show(document, as_json, lineage_tree(document))


@alias_app.command("list")
def list_aliases(
    model: Annotated[str | None, typer.Argument(help="Of one model.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show where aliases point."""
    from shoal.cli.registry_page import alias_table

    with connect(url) as client:
        found = client.aliases(model)
    show(found, as_json, alias_table(found))


@alias_app.command("set")
def set_alias(
    model: Model,
    alias: Alias,
    version: Annotated[str, typer.Argument(help="The release it shall point at.")],
    reason: Reason = "",
    expect: Annotated[str | None, typer.Option(help="Refuse unless it points there now.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a release, or ask for it where another person must agree."""
    options = {"reason": reason} | ({} if expect is None else {"expect": expect})
    with connect(url) as client:
        _tell(client.set_alias(model, alias, version, **options), as_json)


@alias_app.command("remove")
def remove_alias(
    model: Model, alias: Alias, reason: Reason = "", url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Take an alias away."""
    with connect(url) as client:
        _tell(client.remove_alias(model, alias, reason), as_json)


@alias_app.command("history")
def history(
    model: Model,
    alias: Annotated[str | None, typer.Argument(help="Of one alias.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show every move of a model's aliases: who, when, from, to, why, who agreed."""
    from shoal.cli.registry_page import change_table

    with connect(url) as client:
        found = list(client.alias_changes(model=model, alias=alias))
    show(found, as_json, change_table(found))


@alias_app.command("approve")
def approve(
    change: Change, reason: Reason = "", url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Agree to a move that another person asked for."""
    _decide(change, "approve", reason, url, as_json)


@alias_app.command("reject")
def reject(
    change: Change,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Refuse a move."""
    _decide(change, "reject", reason, url, as_json)


@alias_app.command("withdraw")
def withdraw(
    change: Change, reason: Reason = "", url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Take a request back."""
    _decide(change, "withdraw", reason, url, as_json)


def _decide(change: int, verb: str, reason: str, url: str, as_json: bool) -> None:
    with connect(url) as client:
        _tell(client.decide_alias_change(change, verb, reason), as_json)


def _tell(change: Document, as_json: bool) -> None:
    from shoal.cli.registry_page import change_line

    if as_json:
        print_json(change)
    else:
        typer.echo(change_line(change))
