"""`shoal release push|export|sign|import|withdraw|list|show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli import trust
from shoal.cli.session import DEFAULT_URL, AsJson, Url, connect, show
from shoal.cli.signing_keys import OutFile, PassphraseFile
from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from shoal.client import Client

app = typer.Typer(
    help="Releases: signed versions of models.", no_args_is_help=True, rich_markup_mode=None
)


app.command("sign")(trust.sign)
app.command("import")(trust.import_file)


@app.command("push")
def push(
    package: Annotated[Path, typer.Argument(help="A .shoal file, made by `shoal package`.")],
    targets_key: Annotated[
        list[Path] | None, typer.Option(help="Sign and publish it with this targets key; again.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Upload a package; with --targets-key, publish it. No device runs it before a rollout."""
    with connect(url) as client:
        document = client.push_release(package)
        if targets_key and document["state"] != "released":
            _publish(client, package, targets_key, passphrase_file)
            document = client.release(document["model"], document["version"])
    name = f"{document['model']} {document['version']} (sequence {document['sequence']})"
    words = {
        "released": f"published {name}",
        "pending-signature": f"uploaded {name}; pending signature: give --targets-key, or see "
        "shoal release export",
    }
    show(document, as_json, words.get(document["state"], f"{document['state']}: {name}"))


def _publish(client: Client, package: Path, keys: list[Path], passphrase_file: Path | None) -> None:
    """What is signed is taken from the package here, not from what the controller says of it."""
    from shoal.cli.signing import sign_and_send
    from shoal.cli.signing_keys import trusted_root
    from shoal.package import read_package
    from shoal.trust.desk import Desk, target_of_package

    desk = Desk(client, trusted_root(keys))
    proposal = desk.propose_releases([target_of_package(read_package(package))])
    sign_and_send(desk, proposal, keys, passphrase_file, None)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option("--out", help="The proposal to write, for the signers.")],
    release: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL VERSION", help="One release.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Write what is pending signature, or one release, for signers on other machines."""
    from shoal.cli.signing import say, write
    from shoal.trust.desk import Desk, target_of_release

    with connect(url) as client:
        if release:
            if len(release) != 2:
                raise InvalidInputError("release export: expected MODEL VERSION, or neither")
            wanted = [client.release(*release)]
        else:
            wanted = [
                one
                for model in client.models()
                for one in model["releases"]
                if one["state"] == "pending-signature"
            ]
        if not wanted:
            raise InvalidInputError("release export: nothing is pending signature")
        desk = Desk(client)
        proposal = desk.propose_releases([target_of_release(one) for one in wanted])
    say(desk.contents, proposal)
    write(out, desk.base, proposal)


@app.command("withdraw")
def withdraw(
    model: str,
    version: str,
    targets_key: Annotated[list[Path], typer.Option(help="A targets key; again.")],
    passphrase_file: PassphraseFile = None,
    out: OutFile = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Take a release out of what devices may be given; who runs it keeps it."""
    from datetime import UTC, datetime

    from shoal.cli.signing import sign_and_send
    from shoal.cli.signing_keys import trusted_root
    from shoal.trust import ceremony
    from shoal.trust.desk import Desk, path_of

    with connect(url) as client:
        path = path_of(client.release(model, version))
        desk = Desk(client, trusted_root(targets_key))
        contents = desk.fetch_published([path])
        proposal = ceremony.propose_releases(contents, [], datetime.now(UTC), [path])
        if sign_and_send(desk, proposal, targets_key, passphrase_file, out) is not None:
            document = client.release(model, version)
            show(document, as_json, f"withdrew {model} {version}")


@app.command("list")
def list_releases(
    model: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List models and their releases."""
    from shoal.cli.render import release_table

    with connect(url) as client:
        names = [model] if model else [str(one["model"]) for one in client.models()]
        releases = [release for name in names for release in client.model(name)["releases"]]
    show(releases, as_json, release_table(releases))


@app.command("show")
def show_release(model: str, version: str, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show one release with its manifest."""
    from shoal.cli.render import release_page

    with connect(url) as client:
        document = client.release(model, version)
        document["performance"] = client.release_performance(model, version)
    show(document, as_json, release_page(document))
