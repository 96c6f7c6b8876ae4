"""`shoal device logs|bundle|captures|replay|options`: asking one device, over a signed command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, print_json

Timeout = Annotated[float, typer.Option(min=1, help="Seconds to wait for the answer.")]
Model = Annotated[str, typer.Argument(help="Name of the model.")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Repeat; VALUE or null.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs to `shoal device`."""
    app.command("logs")(show_logs)
    app.command("bundle")(save_bundle)
    app.command("captures")(show_captures)
    app.command("replay")(replay)
    app.command("options")(show_options)


def show_logs(
    device: str,
    lines: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 200,
    timeout: Timeout = 60.0,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Print the newest log lines of a device's agent."""
    with connect(url) as client:
        answer = client.ask_device(device, {"kind": "log-tail", "lines": lines}, timeout)
    if as_json:
        print_json(answer["text"].splitlines())
    else:
        typer.echo(answer["text"])


def save_bundle(
    device: str,
    out: Annotated[Path | None, typer.Option(help="File to write; else printed.")] = None,
    timeout: Timeout = 180.0,
    url: Url = DEFAULT_URL,
) -> None:
    """Fetch a support bundle: versions, slots, outbox, configuration, doctor, logs; no secrets."""
    with connect(url) as client:
        answer = client.ask_device(device, {"kind": "support-bundle"}, timeout)
    if out is None:
        print_json(answer["document"])
        return
    out.write_text(answer["text"], encoding="utf-8")
    typer.echo(f"{out}: {len(answer['text'])} characters")


def show_captures(
    device: str,
    model: Model,
    pull: Annotated[bool, typer.Option(help="Ask the device first.")] = True,
    since_ms: Annotated[int, typer.Option(min=0, help="Only samples of that time or later.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    timeout: Timeout = 60.0,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Fetch and list samples that a device captured, newest first."""
    order = {"kind": "capture-range", "model": model, "since_ms": since_ms, "limit": limit}
    with connect(url) as client:
        if pull:
            client.ask_device(device, order, timeout)
        found = client.captures(device, model=model, since_ms=since_ms, limit=limit)
    if as_json:
        print_json(found)
        return
    for one in found:
        outputs = ", ".join(f"{name} {value}" for name, value in one["outputs"].items())
        label = f"  {one['label']}" if one["label"] else ""
        typer.echo(
            f"{one['capture']}  {one['sample_ms']}  {one['version']}  {one['reason']}  "
            f"{outputs}{label}"
        )
    if not found:
        typer.echo("nothing captured")


def replay(
    device: str,
    model: Model,
    capture: Annotated[str, typer.Argument(help="Id of the sample, from `captures`.")],
    timeout: Timeout = 120.0,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Run a captured sample on every slot of its model, on the device, and compare."""
    order = {"kind": "replay", "model": model, "capture": capture}
    with connect(url) as client:
        document = client.ask_device(device, order, timeout)["document"]
    if as_json:
        print_json(document)
        return
    captured = document["captured"]
    typer.echo(f"captured   {captured['version']}  {captured['outputs']}  {captured['label']}")
    for slot, answer in document["slots"].items():
        said = answer.get("sentence") or f"{list(answer['outputs'].values())}  {answer['label']}"
        typer.echo(f"{slot:<9}  {answer['version']}  {said}")


def show_options(
    device: str,
    changes: Setting = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Show or change settings of a device from afar; null gives one back to the device."""
    with connect(url) as client:
        if changes:
            print_json(client.set_options(device, dict(map(_parse, changes))))
        else:
            print_json(client.options(device))


def _parse(text: str) -> tuple[str, Any]:
    """`key=value`; the value is JSON where it can be, else text."""
    import json

    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r}: expected KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
