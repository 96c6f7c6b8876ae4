"""The root of the command: one line a noun."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli import (
    alert,
    audit,
    author,
    device,
    enrolment_token,
    evaluate,
    fleet,
    model,
    profiles,
    release,
    rollout,
    selector,
    simulate,
    token,
    trust,
    user,
)

app = typer.Typer(
    name="shoal",
    help="Put machine-learning models on fleets of sensor gateways and keep them honest there.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(alert.app, name="alert")
app.add_typer(audit.app, name="audit")
app.add_typer(device.app, name="device")
app.add_typer(enrolment_token.app, name="enrolment-token")
app.add_typer(model.app, name="model")
app.add_typer(profiles.app, name="profiles")
app.add_typer(release.app, name="release")
app.add_typer(rollout.app, name="rollout")
app.add_typer(selector.app, name="selector")
app.add_typer(token.app, name="token")
app.add_typer(trust.app, name="trust")
app.add_typer(user.app, name="user")
fleet.register(app)
author.register(app)
simulate.register(app)
app.command("evaluate")(evaluate.evaluate)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"shoal {version('shoal')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Set what holds for all commands."""
