"""`shoal enrolment-token create|list`: one-time tokens that let devices in."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show

app = typer.Typer(
    help="Enrolment tokens: each lets one device in, once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("create")
def create(
    device: Annotated[str | None, typer.Option(help="Only for the device of this name.")] = None,
    site: Annotated[str | None, typer.Option(help="Only for this site.")] = None,
    expires_seconds: Annotated[int | None, typer.Option(min=1, help="Valid so long.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, once; put it in a file for `shoal-agent enrol`."""
    with connect(url) as client:
        document = client.create_enrolment_token(
            device=device, site=site, expires_seconds=expires_seconds
        )
    show(document, as_json, str(document["token"]))


@app.command("list")
def list_tokens(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List tokens, without their secrets."""
    from shoal.cli.render import enrolment_table

    with connect(url) as client:
        tokens = client.enrolment_tokens()
    show(tokens, as_json, enrolment_table(tokens))
