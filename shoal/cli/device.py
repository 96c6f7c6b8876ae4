"""`shoal device list|show`; `device_ask` asks a device, `device_admission` lets one in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import device_admission, device_ask
from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show

if TYPE_CHECKING:
    from shoal.client import Client

app = typer.Typer(
    help="Devices: who they are, what they run, how they do.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

device_ask.register(app)
device_admission.register(app)

Filter = Annotated[str | None, typer.Option(help="Only devices with this.")]
EVENTS_SHOWN = 10


@app.command("list")
def list_devices(
    site: Filter = None,
    status: Filter = None,
    model: Filter = None,
    version: Filter = None,
    q: Annotated[
        str | None, typer.Option("--search", help="Part of the name, or a selector.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 200,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List devices with what they run."""
    from itertools import islice

    from shoal.cli.render import device_table

    with connect(url) as client:
        found = client.devices(site=site, status=status, model=model, version=version, q=q)
        devices = list(islice(found, limit))
    show(devices, as_json, device_table(devices))


@app.command("show")
def show_device(device: str, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show one device: models, health, newest events."""
    from shoal.cli.render import device_page

    with connect(url) as client:
        document = client.device(device)
        events = client.device_events(device, limit=EVENTS_SHOWN)
        document["performance"] = _performance(client, document)
    show(document | {"events": events}, as_json, device_page(document, events))


def _performance(client: Client, device: dict[str, Any]) -> dict[str, Any]:
    """The estimate of each model that has statistics."""
    from shoal.client import ApiError

    found = {}
    for one in device.get("models", []):
        try:
            found[one["model"]] = client.drift(device["device"], one["model"])["performance"]
        except ApiError as error:
            if error.code != "no-statistics":
                raise
    return found
