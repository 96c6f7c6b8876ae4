"""`shoal device pending|approve|reject|preauthorise|revoke`: who may be a device."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show
from shoal.errors import InvalidInputError

Which = Annotated[str, typer.Argument(help="Its name, or the start of its fingerprint.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Repeat for more.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs to `shoal device`."""
    app.command("pending")(list_pending)
    app.command("approve")(approve)
    app.command("reject")(reject)
    app.command("preauthorise")(preauthorise)
    app.command("revoke")(revoke)


def list_pending(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List devices that wait to be let in, and those announced that have not come yet."""
    from shoal.cli.render import admission_table

    with connect(url) as client:
        waiting = client.admissions()
    show(waiting, as_json, admission_table(waiting))


def approve(
    device: Which, label: Labels = None, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Let a waiting device in; compare its fingerprint with what the device prints first."""
    with connect(url) as client:
        document = client.approve_device(device, labels=_labels(label))
    show(
        document, as_json, f"{document['device']}: approved, fingerprint {document['fingerprint']}"
    )


def reject(device: Which, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Refuse a waiting device."""
    with connect(url) as client:
        document = client.reject_device(device)
    show(
        document, as_json, f"{document['device']}: rejected, fingerprint {document['fingerprint']}"
    )


def preauthorise(
    device: str,
    key: Annotated[str, typer.Argument(help="What `shoal-agent key` prints on the device.")],
    site: Annotated[str | None, typer.Option(help="Only for this site.")] = None,
    label: Labels = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Announce a device by its public key: it comes in without a token, once."""
    with connect(url) as client:
        document = client.preauthorise_device(device, key, site=site, labels=_labels(label))
    show(document, as_json, f"{device}: announced, fingerprint {document['fingerprint']}")


def revoke(
    device: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Take a device out of the fleet and cut it off; it must enrol anew to come back."""
    if not yes:
        typer.confirm(f"Revoke {device}?", abort=True)
    with connect(url) as client:
        document = client.revoke_device(device)
    show(document, as_json, f"{device}: revoked")


def _labels(texts: list[str] | None) -> dict[str, Any]:
    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"label {text[:80]!r}: expected NAME=VALUE")
        found[name] = value
    return found
