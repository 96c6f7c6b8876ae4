"""`shoal token create|list|revoke`: API tokens, for people and programs."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show

app = typer.Typer(
    help="API tokens: what the controller's API and this command are used with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DAY_SECONDS = 86400


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for; stands in the audit log.")],
    role: Annotated[str, typer.Option(help="viewer, operator, releaser, admin")] = "operator",
    days: Annotated[int, typer.Option(min=1, max=1825, help="Valid so long.")] = 90,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, once; put it in a file for SHOAL_TOKEN_FILE."""
    with connect(url) as client:
        document = client.create_api_token(name, role=role, expires_seconds=days * DAY_SECONDS)
    show(document, as_json, str(document["token"]))


@app.command("list")
def list_tokens(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List tokens, without their secrets."""
    from shoal.cli.people_tables import token_table

    with connect(url) as client:
        tokens = client.api_tokens()
    show(tokens, as_json, token_table(tokens))


@app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(help="Its id, as `list` shows it (k-…).")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """End a token at once, and the browsers that signed in with it."""
    from shoal.cli.people_tables import token_table

    with connect(url) as client:
        document = client.revoke_api_token(token)
    show(document, as_json, token_table([document]))
