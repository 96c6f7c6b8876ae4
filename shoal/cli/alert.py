"""`shoal alert list|acknowledge`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show

app = typer.Typer(
    help="Alerts: streams of sensor data or answers that changed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Filter = Annotated[str | None, typer.Option(help="Only alerts of this.")]


class State(StrEnum):
    """Which alerts to list."""

    OPEN = "open"
    ENDED = "ended"
    ALL = "all"


@app.command("list")
def list_alerts(
    state: Annotated[State, typer.Option(help="Which alerts.")] = State.OPEN,
    model: Filter = None,
    subject: Annotated[str | None, typer.Option(help="A device or site.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List alerts, newest first."""
    from shoal.cli.render import alert_table

    with connect(url) as client:
        found = client.alerts(state=state.value, model=model, subject=subject, limit=limit)
    show(found, as_json, alert_table(found))


@app.command("propose")
def propose(
    alert: Annotated[int, typer.Argument(help="The alert's number.")],
    version: Annotated[str, typer.Argument(help="The release that shall help.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Draft a rollout to the devices that an alert is about; it starts nothing."""
    from shoal.cli.watch import rollout_line

    with connect(url) as client:
        document = client.propose_rollout(alert, version)
    show(document, as_json, rollout_line(document))


@app.command("acknowledge")
def acknowledge_alert(
    alert: Annotated[int, typer.Argument(help="The alert's number.")],
    note: Annotated[str, typer.Option(help="What is known about it.")] = "",
    accept: Annotated[
        bool, typer.Option("--accept", help="Take the present level as the new normal.")
    ] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Say that an alert was seen."""
    from shoal.cli.render import alert_table

    with connect(url) as client:
        document = client.acknowledge_alert(alert, note=note, accept=accept)
    show(document, as_json, alert_table([document]))
